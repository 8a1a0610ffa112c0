"""The chat template that goes into the GGUF file."""

import json
from typing import Any

import pytest

from demo_model.template import render

QUESTION: dict[str, Any] = {"role": "user", "content": "What is the weather in Paris?"}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


def called(arguments: object) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "get_weather", "arguments": arguments}}],
    }


def test_a_question_alone() -> None:
    text = render([QUESTION], add_generation_prompt=True)
    assert text == "<|im_start|>user\nWhat is the weather in Paris?<|im_end|>\n<|im_start|>assistant\n"


def test_the_system_prompt_comes_first_and_once() -> None:
    text = render([{"role": "system", "content": "Be brief."}, QUESTION])
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.count("Be brief.") == 1


def test_tools_are_listed_as_json_lines_in_the_system_turn() -> None:
    text = render([{"role": "system", "content": "Be brief."}, QUESTION], [TOOL, TOOL])
    system = text.split("<|im_end|>")[0]
    listed = system.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert system.startswith("<|im_start|>system\nBe brief.\nTools:\n<tools>\n")
    assert [json.loads(line) for line in listed] == [TOOL, TOOL]


@pytest.mark.parametrize("arguments", ['{"city": "Paris"}', {"city": "Paris"}], ids=["text", "mapping"])
def test_a_call_is_rendered_as_json_between_tags(arguments: object) -> None:
    text = render([QUESTION, called(arguments)], [TOOL])
    call = text.split("<tool_call>\n")[1].split("\n</tool_call>")[0]
    assert json.loads(call) == {"name": "get_weather", "arguments": {"city": "Paris"}}


def test_results_that_follow_each_other_share_a_user_turn() -> None:
    results = [{"role": "tool", "content": "sunny"}, {"role": "tool", "content": "cloudy"}]
    text = render([QUESTION, called("{}"), *results], [TOOL], add_generation_prompt=True)
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n<tool_response>\ncloudy\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "world"}]
    assert "user\nHello, world<|im_end|>" in render([{"role": "user", "content": parts}])
