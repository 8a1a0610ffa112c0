"""Tools: what makes a model call one, checked with the library that compiles constraints."""

import json
from typing import Any

import llguidance
import pytest

from jupyter_xinfer.protocol.tools import (
    AllowedChoice,
    AllowedTool,
    AllowedTools,
    FunctionTool,
    NamedChoice,
    NamedFunction,
    OfferedTools,
    Tool,
    ToolChoice,
    offered_tools,
)
from xinfer_runtime.errors import InvalidRequest

CITY = FunctionTool(
    name="weather",
    parameters={
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "required": ["city"],
        "$defs": {"city": {"type": "string", "minLength": 1}},
    },
)
TIME = FunctionTool(name="time")


def offered(choice: ToolChoice | None, parallel: bool | None = None) -> OfferedTools:
    return offered_tools([Tool("function", CITY), Tool("function", TIME)], choice, parallel)


def accepts(offer: OfferedTools, text: str) -> bool:
    """Whether the constraint allows `text` as a whole output, with one token per byte."""
    assert offer.constraint is not None
    value = offer.constraint.value
    kind = "lark" if isinstance(value, str) else "json_schema"
    grammar = llguidance.grammar_from(kind, value if isinstance(value, str) else json.dumps(value))
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'
NOW = '{"name": "time", "arguments": {}}'


@pytest.mark.parametrize(
    ("choice", "parallel", "text", "allowed"),
    [
        ("required", None, ROME, True),
        ("required", None, f"{ROME}\n{NOW}", False),
        ("required", True, f"{ROME}\n{NOW}", True),
        ("required", None, "Hello!", False),
        ("required", None, '{"name": "weather", "arguments": {"city": 3}}', False),
        ("required", None, '{"name": "weather", "arguments": {"city": ""}}', False),
        ("required", None, '{"name": "other", "arguments": {}}', False),
        ("required", None, '{"name": "weather", "arguments": {"city": "Rome", "unit": "C"}}', False),
        ("required", None, '{"name": "time", "arguments": {"zone": 1}}', False),
        ("required", False, ROME, True),
        ("required", False, f"{ROME}\n{NOW}", False),
        (NamedChoice(NamedFunction("weather")), None, ROME, True),
        (NamedChoice(NamedFunction("weather")), None, NOW, False),
    ],
)
def test_a_forced_call_is_a_call_of_an_offered_tool_with_arguments_of_its_schema(
    choice: Any, parallel: bool | None, text: str, allowed: bool
) -> None:
    assert accepts(offered(choice, parallel), text) is allowed


@pytest.mark.parametrize(
    ("parameters", "arguments", "allowed"),
    [
        ({"type": "object"}, {"a": 1}, True),
        ({"properties": {"a": {}}, "additionalProperties": True}, {"a": 1, "b": 2}, True),
        ({"properties": {"a": {}}, "patternProperties": {"^b": {}}}, {"a": 1, "b": 2}, True),
        ({"properties": {"a": {"type": "object", "properties": {"c": {}}}}}, {"a": {"c": 1}}, True),
        ({"properties": {"a": {"type": "object", "properties": {"c": {}}}}}, {"a": {"d": 1}}, False),
        ({"properties": {"a": {"items": {"properties": {"c": {}}}}}}, {"a": [{"c": 1}]}, True),
        ({"properties": {"a": {"items": {"type": "object", "properties": {"c": {}}}}}}, {"a": [{"d": 1}]}, False),
    ],
)
def test_a_forced_call_invents_no_arguments_unless_its_schema_invites_them(
    parameters: dict[str, Any], arguments: dict[str, Any], allowed: bool
) -> None:
    tool = FunctionTool(name="f", parameters=parameters)
    for choice in ("required", NamedChoice(NamedFunction("f"))):
        offer = offered_tools([Tool("function", tool)], choice, None)  # type: ignore[arg-type]
        assert accepts(offer, json.dumps({"name": "f", "arguments": arguments})) is allowed


@pytest.mark.parametrize(("mode", "forced"), [("auto", False), ("required", True)])
def test_of_allowed_tools_no_other_is_offered(mode: Any, forced: bool) -> None:
    offer = offered(AllowedChoice(AllowedTools(mode, [AllowedTool("function", NamedFunction("time"))])))

    assert [function.name for function in offer.functions] == ["time"]
    assert (offer.constraint is not None) is forced
    if forced:
        assert accepts(offer, NOW)
        assert not accepts(offer, ROME)


def test_an_allowed_tool_must_be_among_those_offered() -> None:
    with pytest.raises(InvalidRequest, match="'other'"):
        offered(AllowedChoice(AllowedTools("auto", [AllowedTool("function", NamedFunction("other"))])))


def test_a_free_choice_constrains_nothing() -> None:
    assert offered("auto").constraint is None
    assert offered("none").functions == ()
