"""Every route of the extension, in one place. Patterns are joined to Jupyter's base URL by the extension app."""

from typing import Any

from jupyter_xinfer.handlers.abilities import ABILITIES, AbilityHandler
from jupyter_xinfer.handlers.anthropic import CountTokensHandler, MessagesHandler
from jupyter_xinfer.handlers.auth import AuthRequiredHandler, LogoutHandler, RefreshHandler, TokenHandler
from jupyter_xinfer.handlers.base import UnknownRoute
from jupyter_xinfer.handlers.dashboard import DashboardHandler, DashboardSocketHandler
from jupyter_xinfer.handlers.embeddings import EmbeddingsHandler, RerankHandler
from jupyter_xinfer.handlers.health import HealthHandler
from jupyter_xinfer.handlers.models import (
    InfoHandler,
    ModelEventsHandler,
    ModelHandler,
    ModelProgressHandler,
    ModelsHandler,
)
from jupyter_xinfer.handlers.nodes import DrainHandler, NodesHandler
from jupyter_xinfer.handlers.openai import ChatHandler, CompletionHandler
from jupyter_xinfer.handlers.openapi import OpenApiHandler, OpenApiPageHandler
from jupyter_xinfer.handlers.registrations import (
    CachedFilesHandler,
    CachedModelsHandler,
    EnginesHandler,
    RegistrationHandler,
    RegistrationsHandler,
)
from jupyter_xinfer.handlers.replicas import CancelHandler, ReplicaHandler, ReplicasHandler, ScaleHandler
from jupyter_xinfer.handlers.responses import ResponsesHandler
from jupyter_xinfer.handlers.tokens import DetokenizeHandler, TokenizeHandler, TokenTextsHandler
from jupyter_xinfer.handlers.xinference import (
    AbortHandler,
    AddressHandler,
    ClusterInfoHandler,
    DevicesHandler,
    InstancesHandler,
    StatusHandler,
    SupervisorHandler,
    VersionHandler,
    VllmModelsHandler,
    WorkersHandler,
)
from jupyter_xinfer.service import Service

_UID = r"([A-Za-z0-9._-]+)"
# Registered models have names in any language; percent-encoded, they are decoded by tornado.
_NAME = r"([^/]+)"


def routes(service: Service) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """(pattern, handler, arguments) of each route; the first that matches answers."""
    patterns: list[tuple[str, type[Any]]] = [
        (r"/health", HealthHandler),
        (r"/token", TokenHandler),
        (r"/v1/auth/refresh", RefreshHandler),
        (r"/v1/auth/logout", LogoutHandler),
        (r"/v1/cluster/auth", AuthRequiredHandler),
        (r"/v1/chat/completions", ChatHandler),
        (r"/v1/completions", CompletionHandler),
        (r"/v1/responses", ResponsesHandler),
        (r"/v1/messages", MessagesHandler),
        (r"/v1/messages/count_tokens", CountTokensHandler),
        (r"/tokenize", TokenizeHandler),
        (r"/v1/tokenize", TokenizeHandler),
        (r"/detokenize", DetokenizeHandler),
        (r"/v1/detokenize", DetokenizeHandler),
        (r"/v1/embeddings", EmbeddingsHandler),
        (r"/rerank", RerankHandler),
        (r"/v1/rerank", RerankHandler),
        (r"/v2/rerank", RerankHandler),
        (r"/v1/convert_ids_to_tokens", TokenTextsHandler),
        *((path, AbilityHandler) for path in ABILITIES),
        (r"/v1/models", ModelsHandler),
        (r"/v1/models/instances", InstancesHandler),
        (r"/v1/models/vllm-supported", VllmModelsHandler),
        (rf"/v1/models/{_UID}", ModelHandler),
        (rf"/v1/models/{_UID}/requests/{_UID}/abort", AbortHandler),
        (rf"/v1/models/{_UID}/replicas", ReplicasHandler),
        (rf"/v1/models/{_UID}/replicas/{_UID}", ReplicaHandler),
        (rf"/v1/models/{_UID}/scale", ScaleHandler),
        (rf"/v1/models/{_UID}/cancel", CancelHandler),
        (rf"/v1/models/{_UID}/progress", ModelProgressHandler),
        (rf"/v1/models/{_UID}/events", ModelEventsHandler),
        (rf"/v1/model_registrations/{_UID}", RegistrationsHandler),
        (rf"/v1/model_registrations/{_UID}/{_NAME}", RegistrationHandler),
        (rf"/v1/engines/{_NAME}", EnginesHandler),
        (rf"/v1/engines/{_UID}/{_NAME}", EnginesHandler),
        (r"/v1/cache/models", CachedModelsHandler),
        (r"/v1/cache/models/files", CachedFilesHandler),
        (r"/v1/cluster/info", ClusterInfoHandler),
        (r"/v1/cluster/version", VersionHandler),
        (r"/v1/cluster/devices", DevicesHandler),
        (r"/v1/workers", WorkersHandler),
        (r"/v1/supervisor", SupervisorHandler),
        (r"/v1/address", AddressHandler),
        (r"/status", StatusHandler),
        (r"/openapi.json", OpenApiHandler),
        (r"/xinfer/api", OpenApiPageHandler),
        (r"/xinfer/info", InfoHandler),
        (r"/xinfer/nodes", NodesHandler),
        (r"/xinfer/drain", DrainHandler),
        (r"/xinfer/dask/(.*/ws)", DashboardSocketHandler),
        (r"/xinfer/dask/(.*)", DashboardHandler),
        (r"/v1/(.*)", UnknownRoute),
        (r"/xinfer/(.*)", UnknownRoute),
    ]
    return [(pattern, handler, {"service": service}) for pattern, handler in patterns]


def described_routes(service: Service) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """The routes that make up the API: without those that refuse what is unknown, and without Dask's own pages."""
    hidden = (UnknownRoute, DashboardHandler, DashboardSocketHandler)
    return [route for route in routes(service) if route[1] not in hidden]
