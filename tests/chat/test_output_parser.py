"""Outputs in the formats of families of models, streamed in pieces of every size."""

import json
from typing import Any

import pytest

from xinfer_runtime.chat.output_parser import OutputParser

THINKING = "{% if x %}<think>{% endif %}<tool_call>"
DEEPSEEK = "<｜tool▁calls▁begin｜>"  # noqa: RUF001


def read(template: str, output: str, *, size: int, prompt_end: str = "", tools: bool = True) -> tuple[str, str, Any]:
    parser = OutputParser(template, prompt_end, tools=tools)
    parts = [parser.push(output[i : i + size]) for i in range(0, len(output), size)]
    parts.append(parser.finish())
    calls = [(call.name, json.loads(call.arguments)) for part in parts for call in part.calls]
    assert parser.calls == len(calls)
    return "".join(part.text for part in parts), "".join(part.reasoning for part in parts), calls


ROME = ("weather", {"city": "Rome", "days": 3})
FORMATS = [
    ("<tool_call>", 'Sure.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call>'),
    (
        "<tool_call> <arg_key>",
        "Sure.\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
    ),
    (
        "<tool_call> <function=",
        "Sure.\n<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n</function>\n</tool_call>",
    ),
    ("[TOOL_CALLS]", 'Sure.[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome", "days": 3}}]'),
    ("[TOOL_CALLS]", 'Sure.[TOOL_CALLS]weather[ARGS]{"city": "Rome", "days": 3}'),
    ("[TOOL_CALLS]", 'Sure.[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Rome", "days": 3}'),
    ("<|python_tag|>", 'Sure.<|python_tag|>{"name": "weather", "parameters": {"city": "Rome", "days": 3}}'),
    (
        DEEPSEEK,
        "Sure.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"  # noqa: RUF001
        '{"city": "Rome", "days": 3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',  # noqa: RUF001
    ),
    (
        DEEPSEEK,
        "Sure.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"  # noqa: RUF001
        '{"city": "Rome", "days": 3}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',  # noqa: RUF001
    ),
    (
        "<start_function_call>",
        "Sure.<start_function_call>call:weather{city:<escape>Rome<escape>,days:3}<end_function_call>",
    ),
    (
        "<|channel|>",
        "<|channel|>final<|message|>Sure.<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
        '<|constrain|>json<|message|>{"city": "Rome", "days": 3}',
    ),
]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(("template", "output"), FORMATS)
def test_the_formats_of_families_are_read(template: str, output: str, size: int) -> None:
    assert read(template, output, size=size) == ("Sure.", "", [ROME])


@pytest.mark.parametrize(
    ("template", "output"),
    [
        ("<tool_call> <arg_key>", "<tool_call>a b\n</tool_call>"),
        ("<tool_call> <function=", "<tool_call>nothing</tool_call>"),
        ("[TOOL_CALLS]", "[TOOL_CALLS]os.system('x')"),
        ("<|python_tag|>", "<|python_tag|>print(1)"),
        ("<|python_tag|>", '{"answer": 42}'),
        (DEEPSEEK, "<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>"),  # noqa: RUF001
        ("<start_function_call>", "<start_function_call>call(){}<end_function_call>"),
    ],
)
def test_a_block_that_is_no_call_stays_text(template: str, output: str) -> None:
    assert read(template, output, size=3) == (output, "", [])


def test_several_calls_of_one_block_are_all_read() -> None:
    call = '{"name": "f", "parameters": {}}'

    assert read("<|python_tag|>", f"{call}; {call}", size=5)[2] == [("f", {}), ("f", {})]
    assert read("[TOOL_CALLS]", "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{}", size=5)[2] == [("f", {}), ("g", {})]


def test_without_tools_what_looks_like_a_call_is_text() -> None:
    output = '<tool_call>{"name": "f"}</tool_call>'

    assert read("<tool_call>", output, size=4, tools=False) == (output, "", [])


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("prompt_end", "output", "text", "reasoning"),
    [
        ("", "<think>\nHm, a < b.\n</think>\n\nYes.", "Yes.", "Hm, a < b."),
        ("<think>\n", "Hm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("", "Yes, <think> is a tag.</think>", "Yes, <think> is a tag.</think>", ""),
        ("", "<think>cut of", "", "cut of"),
        ("", "<thi", "<thi", ""),
        ("", "<think></think>", "", ""),
    ],
)
def test_thoughts_are_split_off(size: int, prompt_end: str, output: str, text: str, reasoning: str) -> None:
    assert read(THINKING, output, size=size, prompt_end=prompt_end) == (text, reasoning, [])


def test_a_call_after_thoughts_is_read() -> None:
    output = '<think>Call it.</think>\n\n<tool_call>{"name": "f"}</tool_call>'

    assert read(THINKING, output, size=3) == ("", "Call it.", [("f", {})])


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_the_channels_of_harmony_are_thoughts_and_answer(size: int) -> None:
    output = (
        "<|channel|>analysis<|message|>Simple < sum.<|end|><|start|>assistant<|channel|>final<|message|>It is 4 <|x|>."
    )

    assert read("<|channel|>", output, size=size) == ("It is 4 <|x|>.", "Simple < sum.", [])
