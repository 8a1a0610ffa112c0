"""Whatever JSON a caller sends, it is a request or the caller's mistake: nothing else comes of it."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from jupyter_xinfer.handlers.auth import LoginRequest, RefreshRequest
from jupyter_xinfer.protocol.anthropic_requests import CountTokensRequest, MessagesRequest
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.launch_body import launch_request
from jupyter_xinfer.protocol.openai_requests import ChatRequest, CompletionRequest
from jupyter_xinfer.protocol.responses_requests import ResponsesRequest
from jupyter_xinfer.protocol.tokens import DetokenizeRequest, TokenizeRequest
from xinfer_runtime.errors import InvalidRequest

ADD = {"name": "add", "parameters": {"type": "object"}}
MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}]},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "add"}}]},
    {"role": "tool", "tool_call_id": "c", "content": "3"},
]
Use = Callable[[Any], object]
KINDS: dict[type[Struct], tuple[dict[str, Any], Use]] = {
    ChatRequest: (
        {
            "model": "m",
            "messages": MESSAGES,
            "tools": [{"type": "function", "function": ADD}],
            "tool_choice": "auto",
            "stop": ["a"],
            "logit_bias": {"1": 2},
            "n": 2,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        },
        lambda body: (body.own_names(), body.requests("id")),
    ),
    CompletionRequest: (
        {"model": "m", "prompt": ["a", [1, 2]], "suffix": "b", "best_of": 2, "guided_choice": ["a"]},
        lambda body: (body.own_names(), body.echoed_tokens(), body.requests("id")),
    ),
    ResponsesRequest: (
        {
            "model": "m",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "3"},
            ],
            "tools": [{"type": "function", **ADD}],
            "tool_choice": {"type": "function", "name": "add"},
            "text": {"format": {"type": "json_object"}},
        },
        lambda body: body.as_chat([]).requests("id"),
    ),
    MessagesRequest: (
        {
            "model": "m",
            "max_tokens": 3,
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "add", "input": {"a": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "3"}]},
            ],
            "tools": [{"name": "add", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any"},
        },
        lambda body: body.as_chat().requests("id"),
    ),
    CountTokensRequest: (
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        lambda body: body.as_chat().requests("id"),
    ),
    TokenizeRequest: ({"model": "m", "messages": MESSAGES[:1]}, lambda body: body.request("id")),
    DetokenizeRequest: ({"model": "m", "tokens": [1, 2]}, lambda body: body.request("id")),
    LoginRequest: ({"username": "ann", "password": "b"}, lambda body: body),
    RefreshRequest: ({"refresh_token": "a"}, lambda body: body),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something lies in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@st.composite
def bodies(draw: st.DrawFn, valid: dict[str, Any]) -> bytes:
    """A valid body with other values in up to three places."""
    body: Any = valid
    for _ in range(draw(st.integers(0, 3))):
        body = changed(body, draw(st.sampled_from(places(body))), draw(JSON))
    return json.dumps(body).encode()


def takes(kind: type[Struct], body: bytes) -> None:
    with suppress(InvalidRequest):
        KINDS[kind][1](decode(body, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_valid_bodies_are_what_they_say(kind: type[Struct]) -> None:
    decode(json.dumps(KINDS[kind][0]).encode(), kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_changed_body_is_a_request_or_a_mistake(kind: type[Struct], data: st.DataObject) -> None:
    takes(kind, data.draw(bodies(KINDS[kind][0])))


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary(max_size=200))
def test_bytes_are_a_request_or_a_mistake(kind: type[Struct], body: bytes) -> None:
    takes(kind, body)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_launch_is_a_request_or_a_mistake(data: st.DataObject) -> None:
    valid = {"model_name": "xinfer-demo", "replica": 1, "n_gpu": None, "worker_ip": None, "n_worker": 1, "envs": {}}
    with suppress(InvalidRequest):
        launch_request(data.draw(bodies(valid)))
