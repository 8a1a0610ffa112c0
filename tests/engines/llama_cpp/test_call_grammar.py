"""Outputs in which the model calls when it likes, kept to the schemas of strict functions, in each family's format."""

import json
import random
from typing import Any

import jsonschema
import llama_cpp  # noqa: F401
import numpy as np
import pytest

from xinfer_runtime.chat.output_parser import OutputForm, OutputParser, output_form
from xinfer_runtime.chat.tool_formats import _BY_MARK, json_format
from xinfer_runtime.engines.llama_cpp.constraint import OutputConstraint
from xinfer_runtime.engines.llama_cpp.constraint_compiler import ConstraintCompiler
from xinfer_runtime.errors import InvalidRequest

ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/digit"}},
    "required": ["a", "b"],
    "$defs": {"digit": {"enum": [1, 2, 3]}},
}
TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": ADD, "strict": True}},
    {"type": "function", "function": {"name": "loose", "parameters": ADD}},
]
MARKS = sorted({mark for mark, _ in _BY_MARK})
PIECES = [*(bytes([byte]) for byte in range(256)), b"<tool_call>", b"</think>\n\n", b'>\n{"', b""]
END = len(PIECES) - 1


def form_of(template: str, prompt_end: str = "") -> OutputForm:
    form = output_form(template, prompt_end)
    return OutputForm(json_format(form.format), form.thoughts, form.inside, form.harmony)


def start(form: OutputForm, tools: list[dict[str, Any]] = TOOLS) -> OutputConstraint:
    return ConstraintCompiler(PIECES.__getitem__, len(PIECES), frozenset({END})).compile_calls(tools, form)


def allowed(state: OutputConstraint) -> list[int]:
    logits = np.zeros(len(PIECES), dtype=np.float32)
    state.rule_out(logits)
    assert state.failure is None, state.failure
    found: list[int] = np.flatnonzero(np.isfinite(logits)).tolist()
    return found


def accepted(form: OutputForm, text: str) -> str:
    """How much of the text may come, with `$` after all of it where it may end there."""
    state = start(form)
    for at, byte in enumerate(text.encode()):
        if byte not in allowed(state):
            return text.encode()[:at].decode(errors="replace")
        state.accept(byte)
    return text + ("$" if END in allowed(state) else "")


def read(form: OutputForm, text: str) -> tuple[str, str, list[tuple[str, Any]]]:
    parser = OutputParser(form, tools=True)
    output = parser.push(text) + parser.finish()
    return output.text, output.reasoning, [(call.name, json.loads(call.arguments)) for call in output.calls]


HERMES = form_of("<tool_call>")
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.mark.parametrize(
    "text", ["", "Hello <tool_calls> {", f"Well. {CALL}", f"{CALL}\n{CALL.replace('add', 'loose')}", "<think>"]
)
def test_text_and_conforming_calls_may_come(text: str) -> None:
    assert accepted(HERMES, text) == f"{text}$"


@pytest.mark.parametrize(
    ("text", "until"),
    [
        (CALL.replace("1", '"x"'), '"a": '),
        (CALL.replace("2", "4"), '"b": '),
        (CALL.replace(', "b": 2', ""), '"a": 1'),
        (CALL.replace('"b": 2', '"b": 2, "c": 1'), '"b": 2'),
        (CALL.replace("add", "subtract"), '"name": "'),
        ("Hm. <tool_call> no", "Hm. <tool_call>"),
    ],
)
def test_a_call_that_does_not_conform_cannot_come(text: str, until: str) -> None:
    assert accepted(HERMES, text).endswith(until)


def test_arguments_of_a_function_that_is_not_strict_are_any_object() -> None:
    call = '<tool_call>\n{"name": "loose", "arguments": {"x": [null]}}\n</tool_call>'
    assert accepted(HERMES, call) == f"{call}$"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("<|start_header_id|>", '{"name": "add", "parameters": {"a": 1, "b": 2}}'),
        ("<|start_header_id|>", '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}'),
        ("[TOOL_CALLS]", '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}}]'),
        ("[TOOL_CALLS]", '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}'),
        ("<TOOLCALL>", '<TOOLCALL>[{"name": "add", "arguments": {"a": 1, "b": 2}}]</TOOLCALL>'),
        (
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
            '{"a": 1, "b": 2}<|tool_call_end|><|tool_calls_section_end|>',
        ),
        ("<function= <tool_call>", CALL),
        ("<start_function_call>", '<start_function_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n'),
        ("", ' {"name": "add", "arguments": {"a": 1, "b": 2}}'),
        ("<|channel|>", '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}'),
    ],
)
def test_each_family_calls_in_its_own_format_or_with_json_between_its_marks(template: str, text: str) -> None:
    form = form_of(template)
    assert accepted(form, text).startswith(text)
    assert read(form, text)[2] == [("add", {"a": 1, "b": 2})]
    wrong = text.replace('"a": 1', '"a": "x"')
    assert accepted(form, wrong).endswith('"a": ')


@pytest.mark.parametrize("template", [*MARKS, "", "<|channel|>", "<think><tool_call>", "<think><|start_header_id|>"])
def test_whatever_comes_is_read_as_text_and_conforming_calls(template: str) -> None:
    """Random outputs, in which what opens calls and closes texts is likely."""
    chance = random.Random(template)
    form = form_of(template)
    called = 0
    likely = set(b'"}]{<|\n 12ab')
    for _ in range(16):
        state, text = start(form), b""
        opening = "<|channel|>commentary to=functions.add" if form.harmony else form.format.opening
        for byte in chance.choice([opening, "x", "{"]).encode():
            if byte in allowed(state):
                state.accept(byte)
                text += bytes([byte])
        for _ in range(400):
            options = allowed(state)
            ends = END in options and chance.random() < 0.5
            preferred = [token for token in options if token in likely]
            token = END if ends else chance.choice(preferred or [token for token in options if token != END] or [END])
            if token == END:
                break
            text += PIECES[token]
            state.accept(token)
            if state.complete:
                break
        else:
            continue
        shown, _, calls = read(form, text.decode(errors="replace"))
        for name, arguments in calls:
            assert name in ("add", "loose")
            if name == "add":
                jsonschema.validate(arguments, {**ADD, "additionalProperties": False})
        assert form.format.opening not in shown
        called += bool(calls)
    assert called


@pytest.mark.parametrize(
    ("prompt_end", "text", "until"),
    [
        ("", f"<think>Shall I <tool_call> it?</think>\n\n{CALL}", "$"),
        ("", f"\n<think>Hm.</think>Well. <think> {CALL}", "$"),
        ("", f"No thoughts. {CALL}", "$"),
        ("", "<think>Hm.</think><tool_call> it", "<tool_call>"),
        ("<think>\n", f"Shall I <tool_call> it?</think>\n{CALL}", "$"),
        ("<think>\n", "Hm.", "Hm."),
        ("<think>\n", "</think>", "$"),
    ],
)
def test_thoughts_are_free(prompt_end: str, text: str, until: str) -> None:
    assert accepted(form_of("<think> <tool_call>", prompt_end), text).endswith(until)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("<|channel|>analysis<|message|>Hm. {<|end|><|start|>assistant<|channel|>final<|message|>Hello", "Hello$"),
        ("<|channel|>analysis<|message|>Hm.<|channel|>", "Hm.<|channel|"),
        ("<|channel|>commentary to=functions.other", "to=functions."),
        ("<|channel|>final<|message|>Hello<|start|>", "Hello<|start|"),
        ("Hello", ""),
    ],
)
def test_messages_of_gpt_oss_hold_no_others(text: str, until: str) -> None:
    assert accepted(form_of("<|channel|>"), text).endswith(until)


@pytest.mark.parametrize("parameters", [{"not": {}}, {"type": "object", "properties": {"a": {"$ref": "https://a/b"}}}])
def test_parameters_that_cannot_be_enforced_are_refused(parameters: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": parameters, "strict": True}}]
    with pytest.raises(InvalidRequest, match="these tools"):
        start(HERMES, tools)


def test_parameters_that_are_nested_too_deeply_are_refused() -> None:
    parameters: dict[str, Any] = {}
    for _ in range(5000):
        parameters = {"properties": {"a": parameters}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": parameters, "strict": True}}]
    with pytest.raises(InvalidRequest, match="nested"):
        start(HERMES, tools)
