"""The OpenAPI 3.1 document of our routes, made from the routes themselves and from the types that validate bodies."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from jupyter_xinfer.auth.permissions import PUBLIC
from jupyter_xinfer.protocol.anthropic_requests import CountTokensRequest, MessagesRequest
from jupyter_xinfer.protocol.openai_requests import ChatRequest, CompletionRequest
from jupyter_xinfer.protocol.responses_requests import ResponsesRequest
from jupyter_xinfer.protocol.tokens import DetokenizeRequest, TokenizeRequest
from xinfer_runtime.messages import LaunchRequest

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
BODIES: Mapping[str, type[Struct]] = {
    "POST /v1/chat/completions": ChatRequest,
    "POST /v1/completions": CompletionRequest,
    "POST /v1/responses": ResponsesRequest,
    "POST /v1/messages": MessagesRequest,
    "POST /v1/messages/count_tokens": CountTokensRequest,
    "POST /tokenize": TokenizeRequest,
    "POST /v1/tokenize": TokenizeRequest,
    "POST /detokenize": DetokenizeRequest,
    "POST /v1/detokenize": DetokenizeRequest,
    "POST /v1/models": LaunchRequest,
}
"""The types that decode the bodies of requests."""

_REFERENCE = "#/components/schemas/{name}"
_GROUP = re.compile(r"\([^()]*\)")
_STREAMS = (ChatRequest, CompletionRequest, ResponsesRequest, MessagesRequest)

Route = tuple[str, type[Any], dict[str, Any]]


class ErrorDetail(Struct):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct):
    error: ErrorDetail
    detail: str


def document(routes: Iterable[Route], base_url: str, version: str) -> dict[str, Any]:
    """The whole document; `base_url` is the path below which all routes lie."""
    kinds: list[type[Struct]] = [*dict.fromkeys(BODIES.values()), ErrorBody]
    references, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    by_kind = dict(zip(kinds, references, strict=True))
    for kind in kinds:
        _tell_refusals(kind, components[kind.__name__])
    paths: dict[str, dict[str, Any]] = {}
    for pattern, handler, _ in routes:
        path, names = readable(pattern)
        for method in METHODS:
            permission = getattr(getattr(handler, method.lower(), None), "permission", None)
            if permission is None:
                continue
            operation = _operation(method, path, handler, permission, names, by_kind)
            paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "jupyter-xinfer", "version": version},
        "servers": [{"url": base_url.rstrip("/") or "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def readable(pattern: str) -> tuple[str, list[str]]:
    """A route's pattern as an OpenAPI path, and the names of its parameters."""
    names: list[str] = []

    def name(_: re.Match[str]) -> str:
        names.append("id" if not names else f"id{len(names) + 1}")
        return f"{{{names[-1]}}}"

    return _GROUP.sub(name, pattern), names


def _operation(
    method: str,
    path: str,
    handler: type[Any],
    permission: str,
    names: list[str],
    by_kind: Mapping[type[Struct], Any],
) -> dict[str, Any]:
    kind = BODIES.get(f"{method} {path}")
    answer: dict[str, Any] = {"application/json": {"schema": {}}}
    if kind in _STREAMS:
        answer["text/event-stream"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "operationId": "_".join([method.lower(), *re.findall(r"\w+", path)]),
        "summary": _summary(handler, method),
        "description": f"Needs the permission `{permission}`.",
        "responses": {
            "200": {"description": "The answer", "content": answer},
            "default": {
                "description": "An error",
                "content": {"application/json": {"schema": by_kind[ErrorBody]}},
            },
        },
    }
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if kind is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_kind[kind]}}}
    if permission == PUBLIC:
        operation["security"] = []
    elif path.startswith("/v1/messages"):
        operation["security"] = [{"bearer": []}, {"x-api-key": []}]
    return operation


def _summary(handler: type[Any], method: str) -> str:
    text = getattr(handler, method.lower()).__doc__ or handler.__dict__.get("__doc__") or handler.__name__
    return str(text).strip().splitlines()[0]


def _tell_refusals(kind: type[Struct], schema: dict[str, Any]) -> None:
    """Say which documented parameters are only known to be refused."""
    for name in getattr(kind, "unsupported", ()):
        schema["properties"][name]["description"] = "Refused, unless it asks for what the server does anyway."
