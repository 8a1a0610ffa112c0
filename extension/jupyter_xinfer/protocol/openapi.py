"""The OpenAPI 3.1 document of our routes, made from the routes themselves and from the types that validate bodies."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from jupyter_xinfer.auth.permissions import PUBLIC

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_REFERENCE = "#/components/schemas/{name}"
_GROUP = re.compile(r"\([^()]*\)")

Route = tuple[str, type[Any], dict[str, Any]]


@dataclass(frozen=True)
class Takes:
    """What a verb takes, for the document: the type that decodes its body, the names of its query's parameters, and
    whether it streams events where it is asked to."""

    body: type[Struct] | None = None
    required_query: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    streams: bool = False


NOTHING = Takes()


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
    routes = list(routes)
    verbs = [getattr(handler, method.lower(), None) for _, handler, _ in routes for method in METHODS]
    taken = [getattr(verb, "takes", NOTHING).body for verb in verbs]
    given = [getattr(verb, "gives", Any) for verb in verbs]
    kinds: list[Any] = [*dict.fromkeys([*(body for body in taken if body is not None), *given, ErrorBody])]
    references, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE)
    by_kind = dict(zip(kinds, references, strict=True))
    for kind in filter(None, dict.fromkeys(taken)):
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
    by_kind: Mapping[Any, Any],
) -> dict[str, Any]:
    verb = getattr(handler, method.lower())
    takes, gives = verb.takes, verb.gives
    answer: dict[str, Any] = {getattr(handler, "media_type", "application/json"): {"schema": by_kind[gives]}}
    if takes.streams:
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
    parameters = [
        *(_parameter(name, "path", required=True) for name in names),
        *(_parameter(name, "query", required=True) for name in takes.required_query),
        *(_parameter(name, "query", required=False) for name in takes.query),
    ]
    if parameters:
        operation["parameters"] = parameters
    if takes.body is not None:
        schema = by_kind[takes.body]
        required = any(field.required for field in msgspec.structs.fields(takes.body))
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    if permission == PUBLIC:
        operation["security"] = []
    elif path.startswith("/v1/messages"):
        operation["security"] = [{"bearer": []}, {"x-api-key": []}]
    return operation


def _parameter(name: str, place: str, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": {"type": "string"}}


def _summary(handler: type[Any], method: str) -> str:
    text = getattr(handler, method.lower()).__doc__ or handler.__dict__.get("__doc__") or handler.__name__
    return str(text).strip().splitlines()[0]


def _tell_refusals(kind: type[Struct], schema: dict[str, Any]) -> None:
    """Say which documented parameters are only known to be refused."""
    for name in getattr(kind, "unsupported", ()):
        schema["properties"][name]["description"] = "Refused, unless it asks for what the server does anyway."
