"""A page of the OpenAPI document for people: plain HTML, without scripts and without anything from elsewhere."""

import json
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
summary { cursor: pointer; padding: .3rem 0 } code, pre { font-family: ui-monospace, monospace }
b { display: inline-block; width: 4.5rem } td, th { text-align: left; padding: .1rem .8rem .1rem 0; vertical-align: top }
pre { overflow-x: auto; background: color-mix(in srgb, currentColor 7%, transparent); padding: .5rem }
"""  # noqa: E501


def page(document: dict[str, Any]) -> str:
    """The whole page. All texts of the document are escaped."""
    base = document["servers"][0]["url"]
    operations = [
        _operation(path, method, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = f"{document['info']['title']} {document['info']['version']}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>All routes lie below <code>{escape(base)}</code>. "
        f'The same for programs: <a href="../openapi.json">openapi.json</a>.</p>{"".join(operations)}</html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    body = operation.get("requestBody")
    schema = _resolved(body["content"]["application/json"]["schema"], document) if body is not None else None
    return (
        f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code> "
        f"{escape(operation['summary'])}</summary><p>{escape(operation['description'])}</p>"
        f"{_fields(schema) if schema is not None else ''}</details>"
    )


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _fields(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}"
        f"<td><pre>{escape(json.dumps(field, ensure_ascii=False))}</pre>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table><tr><th>field<th>schema{rows}</table>"
