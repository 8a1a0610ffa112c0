"""The OpenAPI document, checked against the specification's own schema."""

import json
import re
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from jupyter_xinfer.handlers.abilities import ABILITIES
from jupyter_xinfer.handlers.routes import described_routes
from jupyter_xinfer.protocol.openapi import document
from jupyter_xinfer.protocol.openapi_page import page


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    written = msgspec.json.encode(document(described_routes(Mock()), "/user/ann/", "1.2.3"))
    return dict(json.loads(written))


def test_the_document_is_valid_openapi(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()


def test_every_route_is_in_it(described: dict[str, Any]) -> None:
    assert len(described["paths"]) == len({pattern for pattern, _, _ in described_routes(Mock())})
    assert {f"{m.upper()} {path}" for path, ms in described["paths"].items() for m in ms} >= {
        "GET /v1/models",
        "POST /v1/models",
        "DELETE /v1/models/{id}",
        "POST /v1/chat/completions",
    }


def test_every_body_that_is_read_has_a_schema(described: dict[str, Any]) -> None:
    without = {
        path
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if method == "post" and "requestBody" not in operation
    }

    # Nothing is read of these.
    assert without - set(ABILITIES) == {"/v1/auth/logout", "/v1/models/{id}/cancel"}


def test_every_operation_has_an_id_of_its_own(described: dict[str, Any]) -> None:
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]

    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"model": "m", "messages": [{"role": "user", "content": "Hello!"}], "temperature": 1}, True),
        ({"model": "m", "messages": [{"role": "user", "content": "Hello!"}], "temperature": 3}, False),
        ({"model": "m"}, False),
        ({"model": "m", "messages": [{"role": "user", "content": "Hello!"}], "bogus": 1}, False),
    ],
)
def test_the_schemas_say_what_the_server_takes(described: dict[str, Any], body: Any, valid: bool) -> None:
    schema = {"$ref": "#/components/schemas/ChatRequest", "components": described["components"]}

    assert Draft202012Validator(schema).is_valid(body) is valid


def test_the_page_names_every_path_and_loads_nothing_from_elsewhere(described: dict[str, Any]) -> None:
    html = page(described)

    assert all(f"<code>{path}</code>" in html for path in described["paths"])
    assert not re.search(r"<script|<link|<img|src=|https?://", html)
