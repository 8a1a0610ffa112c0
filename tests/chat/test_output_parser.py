"""Outputs in the formats of families of models, streamed in pieces of every size."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xinfer_runtime.chat.output_parser import OutputParser, output_form

THINKING = "{% if x %}<think>{% endif %}<tool_call>"
DEEPSEEK = "<｜tool▁calls▁begin｜>"  # noqa: RUF001


def read(template: str, output: str, *, size: int, prompt_end: str = "", tools: bool = True) -> tuple[str, str, Any]:
    parser = OutputParser(output_form(template, prompt_end), tools=tools)
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
        "<|tool_call>",
        'Sure.<|tool_call>call:weather{city:<|"|>Rome<|"|>,days:3}<tool_call|>',
    ),
    (
        "<|tool_calls_section_begin|>",
        "Sure.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Rome", "days": 3}<|tool_call_end|><|tool_calls_section_end|>',
    ),
    (
        "<|START_ACTION|>",
        'Sure.<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "weather", "parameters": '
        '{"city": "Rome", "days": 3}}\n]<|END_ACTION|>',
    ),
    ("<TOOLCALL>", 'Sure.<TOOLCALL>[{"name": "weather", "arguments": {"city": "Rome", "days": 3}}]</TOOLCALL>'),
    ("<|tool_call|>", 'Sure.<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome", "days": 3}}]'),
    (
        "<|tool_call|>",
        'Sure.<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome", "days": 3}}]<|/tool_call|>',
    ),
    (
        "<tool_calls>",
        'Sure.\n<tool_calls>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_calls>',
    ),
    (
        "<minimax:tool_call>",
        'Sure.\n<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Rome</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>',
    ),
    (
        "<seed:tool_call> <function=",
        "Sure.\n<seed:tool_call>\n<function=weather>\n<parameter=city>Rome</parameter>\n"
        "<parameter=days>3</parameter>\n</function>\n</seed:tool_call>",
    ),
    ("<|tool_call_start|>", "Sure.<|tool_call_start|>[weather(city='Rome', days=3)]<|tool_call_end|>"),
    (
        "no format at all",
        'Sure.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 3}}\n</tool_call>',
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


BARE = '{"name": "weather", "parameters": {"city": "Rome", "days": 3}}'


@pytest.mark.parametrize("template", ["<|python_tag|>", "<|start_header_id|>", "no format at all"])
def test_a_call_may_come_without_marks(template: str) -> None:
    assert read(template, BARE, size=7) == ("", "", [ROME])
    assert read(template, "Not {this}.", size=7) == ("Not {this}.", "", [])


@pytest.mark.parametrize(("template", "output"), [*FORMATS, ("<|python_tag|>", BARE)])
@settings(max_examples=25)
@given(data=st.data())
def test_wherever_an_output_is_cut_it_means_the_same(template: str, output: str, data: st.DataObject) -> None:
    whole = read(template, output, size=len(output))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(output) - 1), max_size=12)))
    parser = OutputParser(output_form(template, ""), tools=True)
    parts = [parser.push(output[a:b]) for a, b in pairwise([0, *cuts, len(output)])]
    parts.append(parser.finish())

    calls = [(call.name, json.loads(call.arguments)) for part in parts for call in part.calls]
    assert ("".join(part.text for part in parts), "".join(part.reasoning for part in parts), calls) == whole


@pytest.mark.parametrize("template", sorted({template for template, _ in FORMATS}))
@settings(max_examples=30)
@given(data=st.data())
def test_no_output_breaks_the_parser(template: str, data: st.DataObject) -> None:
    """A model may write anything, and its own marks in any order."""
    marks = [output for each, output in FORMATS if each == template]
    pieces = st.one_of(
        st.text(max_size=5), st.sampled_from(re.findall(r"<[^>]*>|\[[A-Z_]+\]|[{}\[\]:,()]", "".join(marks)))
    )
    output = "".join(data.draw(st.lists(pieces, max_size=12)))
    text, reasoning, calls = read(template, output, size=3)

    # Of what is no call, nothing but white space around marks and the marks of channels gets lost.
    if not calls and template != "<|channel|>":
        assert (text + reasoning).split() == output.split()


def test_ids_of_the_model_are_kept() -> None:
    [(_, output)] = [each for each in FORMATS if each[0] == "<|tool_calls_section_begin|>"]
    parser = OutputParser(output_form("<|tool_calls_section_begin|>", ""), tools=True)
    parts = [parser.push(output), parser.finish()]

    assert [call.id for part in parts for call in part.calls] == ["functions.weather:0"]


@pytest.mark.parametrize(
    ("block", "arguments"),
    [
        ("call:f{}", {}),
        ("call:f{a:true,b:null,c:-1.5,d:word}", {"a": True, "b": None, "c": -1.5, "d": "word"}),
        ('call:f{a:<|"|>x, {y}: [z]<|"|>}', {"a": "x, {y}: [z]"}),
        ('call:f{a:{<|"|>b<|"|>:[1,<|"|>c<|"|>,{d:2}],e:{}},f:[]}', {"a": {"b": [1, "c", {"d": 2}], "e": {}}, "f": []}),
    ],
)
def test_gemmas_objects_may_be_nested(block: str, arguments: dict[str, Any]) -> None:
    assert read("<|tool_call>", f"<|tool_call>{block}<tool_call|>", size=4)[2] == [("f", arguments)]


@pytest.mark.parametrize(
    "block",
    [
        "call:f{a:1",
        "call:f{a}",
        "call:f{a:1}}",
        "call:f{:1}",
        'call:f{a:<|"|>x}',
        "call:f{a:" + "[" * 100 + "]" * 100 + "}",
        "call:f[1]",
    ],
)
def test_what_is_no_object_of_gemmas_is_no_call(block: str) -> None:
    assert read("<|tool_call>", f"<|tool_call>{block}<tool_call|>", size=4)[2] == []


@pytest.mark.parametrize(
    "block",
    [
        "[f(1)]",
        "[f(**x)]",
        "[f(a=g())]",
        "[f(a=__import__('os'))]",
        "[f(a={1, 2})]",
        "[(lambda: 1)(a=1)]",
        "f(",
        "[f(a=1), 2]",
        "[" * 5000,
        "[f(a=" + "-" * 5000 + "1)]",
    ],
)
def test_of_pythons_notation_only_literals_are_taken(block: str) -> None:
    output = f"<|tool_call_start|>{block}<|tool_call_end|>"

    assert read("<|tool_call_start|>", output, size=1000) == (output, "", [])


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


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel>thought", "<channel|>"),
    ],
)
def test_thoughts_are_split_off_at_the_tags_of_each_family(size: int, opening: str, closing: str) -> None:
    template = f"{{% if x %}}{opening}{{% endif %}}"

    assert read(template, f"{opening}\nHm.\n{closing}\nYes.", size=size) == ("Yes.", "Hm.", [])
    assert read(template, f"Hm.{closing}Yes.", size=size, prompt_end=f"{opening}\n") == ("Yes.", "Hm.", [])
    assert read(template, "Yes.", size=size, prompt_end=f"{opening}\n{closing}") == ("Yes.", "", [])


def test_a_call_after_thoughts_is_read() -> None:
    output = '<think>Call it.</think>\n\n<tool_call>{"name": "f"}</tool_call>'

    assert read(THINKING, output, size=3) == ("", "Call it.", [("f", {})])


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_the_channels_of_harmony_are_thoughts_and_answer(size: int) -> None:
    output = (
        "<|channel|>analysis<|message|>Simple < sum.<|end|><|start|>assistant<|channel|>final<|message|>It is 4 <|x|>."
    )

    assert read("<|channel|>", output, size=size) == ("It is 4 <|x|>.", "Simple < sum.", [])
