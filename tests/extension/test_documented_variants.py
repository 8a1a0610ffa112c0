"""What OpenAI documents inside of parameters: every field and variant works, or is refused by its name.

The names are those of OpenAI's specification (`openai_parameters.json`); `test_documented_parameters.py` sends the
parameters themselves.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.embedding_requests import EmbeddingsRequest
from jupyter_xinfer.protocol.openai_requests import ChatRequest
from jupyter_xinfer.protocol.responses_requests import ResponsesRequest
from xinfer_runtime.errors import InvalidRequest

NAMES = json.loads(Path(__file__).with_name("openai_parameters.json").read_text())
USER = {"role": "user", "content": "Hello!"}
DEEP = json.loads('{"items": ' * 70 + "{}" + "}" * 70)
ADD = {"name": "add", "parameters": {"type": "object"}}
FUNCTION_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
NAMED = {"type": "function", "name": "add"}

# By specification's name: the field or variant, what is sent, and the field that a refusal names.
CHAT: dict[str, dict[str, tuple[Any, str | None]]] = {
    "ChatCompletionRequestMessage": {
        "system": ({"messages": [{"role": "system", "content": "x"}, USER]}, None),
        "developer": ({"messages": [{"role": "developer", "content": "x"}, USER]}, None),
        "user": ({"messages": [USER]}, None),
        "assistant": ({"messages": [USER, {"role": "assistant", "content": "x"}]}, None),
        "tool": ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "c1"}]}, None),
        "function": ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
    },
    "ChatCompletionRequestAssistantMessage": {
        "role": ({"messages": [{"role": "assistant", "content": "x"}]}, None),
        "content": ({"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]}, None),
        "name": ({"messages": [{"role": "assistant", "content": "x", "name": "a"}]}, None),
        "refusal": ({"messages": [{"role": "assistant", "content": None, "refusal": "no"}]}, None),
        "tool_calls": ({"messages": [{"role": "assistant", "content": None, "tool_calls": [FUNCTION_CALL]}]}, None),
        "audio": ({"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, "messages[0].audio"),
        "function_call": (
            {"messages": [{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}]},
            "messages[0].function_call",
        ),
    },
    "ChatCompletionRequestUserMessageContentPart": {
        "text": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, None),
        **{
            kind: ({"messages": [{"role": "user", "content": [{"type": kind, kind: value}]}]}, "messages[0].content[0]")
            for kind, value in {
                "image_url": {"url": "data:image/png;base64,AA=="},
                "input_audio": {"data": "AA==", "format": "wav"},
                "file": {"file_id": "f"},
            }.items()
        },
    },
    "ChatCompletionToolChoiceOption": {
        "function": ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, None),
        "allowed_tools": (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "add"}}]},
                }
            },
            None,
        ),
        "custom": ({"tool_choice": {"type": "custom", "custom": {"name": "add"}}}, "tool_choice.type"),
    },
}
RESPONSES: dict[str, dict[str, tuple[Any, str | None]]] = {
    "Reasoning": {
        "effort": ({"reasoning": {"effort": "low"}}, None),
        "summary": ({"reasoning": {"summary": "auto"}}, None),
        "generate_summary": ({"reasoning": {"generate_summary": "auto"}}, None),
        "context": ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        "mode": ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    },
    "ResponseTextParam": {
        "format": ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True}}}, None),
        "verbosity": ({"text": {"verbosity": "low"}}, "text.verbosity"),
    },
    "ToolChoiceParam": {
        "function": ({"tool_choice": NAMED}, None),
        "allowed_tools": ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [NAMED]}}, None),
        **{
            kind: ({"tool_choice": {"type": kind, "name": "add"}}, "tool_choice.type")
            for kind in NAMES["variants"]["ToolChoiceParam"]
            if kind not in ("function", "allowed_tools")
        },
    },
    "InputContent": {
        "input_text": ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}, None),
        **{
            kind: ({"input": [USER, {"role": "user", "content": [{"type": kind, **value}]}]}, "input[1].content[0]")
            for kind, value in {"input_image": {"image_url": "data:,"}, "input_file": {"file_id": "f"}}.items()
        },
    },
    "InputItem": {
        "message": ({"input": [{"type": "message", **USER}]}, None),
        "function_call": ({"input": [{"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}]}, None),
        "function_call_output": ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, None),
        "reasoning": ({"input": [{"type": "reasoning", "id": "r", "summary": []}, USER]}, None),
        **{
            kind: ({"input": [{"type": kind}]}, "input[0].type")
            for kind in NAMES["variants"]["InputItem"]
            if kind not in ("message", "function_call", "function_call_output", "reasoning")
        },
    },
}
CASES = [
    pytest.param(kind, *case, id=f"{schema}-{name}")
    for kind, schemas in ((ChatRequest, CHAT), (ResponsesRequest, RESPONSES))
    for schema, cases in schemas.items()
    for name, case in cases.items()
]


def read(kind: type[Any], fields: dict[str, Any]) -> None:
    if kind is ChatRequest:
        body = {"model": "m", "messages": [USER], "tools": [{"type": "function", "function": ADD}], **fields}
        decode(json.dumps(body).encode(), ChatRequest).requests("id")
    else:
        body = {"model": "m", "input": "x", "tools": [{"type": "function", **ADD}], **fields}
        decode(json.dumps(body).encode(), ResponsesRequest).as_chat([]).requests("id")


@pytest.mark.parametrize(("schema", "cases"), [*CHAT.items(), *RESPONSES.items()])
def test_nothing_documented_is_left_out(schema: str, cases: dict[str, Any]) -> None:
    assert sorted(cases) == sorted(NAMES.get(schema) or NAMES["variants"][schema])


@pytest.mark.parametrize(("kind", "fields", "refused"), CASES)
def test_a_documented_field_or_variant_works_or_is_refused_by_its_name(
    kind: type[Any], fields: dict[str, Any], refused: str | None
) -> None:
    if refused is None:
        read(kind, fields)
        return
    with pytest.raises(InvalidRequest) as refusal:
        read(kind, fields)

    assert refusal.value.param == refused
    assert refused in refusal.value.message


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (ChatRequest, {"response_format": {"type": "json_object", "bogus": 1}}, "response_format.bogus"),
        (ChatRequest, {"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
        (ChatRequest, {"stream": True, "stream_options": {"bogus": 1}}, "stream_options.bogus"),
        (
            ChatRequest,
            {"response_format": {"type": "json_object", "json_schema": {"name": "a"}}},
            "response_format.json_schema",
        ),
        (ResponsesRequest, {"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        (
            ResponsesRequest,
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": DEEP}}},
            "text.format.schema",
        ),
        (ResponsesRequest, {"text": {"format": {"type": "text", "bogus": 1}}}, "text.format.bogus"),
        (ResponsesRequest, {"tools": [], "tool_choice": "required"}, "tool_choice"),
        (ResponsesRequest, {"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        (ResponsesRequest, {"input": [{"role": "user"}]}, "input[0].content"),
    ],
)
def test_what_belongs_nowhere_or_is_missing_is_named(kind: type[Any], fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(kind, fields)

    assert refusal.value.param == param


def test_every_parameter_of_embeddings_is_known() -> None:
    assert set(NAMES["CreateEmbeddingRequest"]) <= set(EmbeddingsRequest.__struct_fields__)
