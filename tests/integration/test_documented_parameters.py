"""Every parameter that OpenAI documents, sent to a real server: it works, or is refused by its name.

The names are those of OpenAI's specification (`tests/extension/openai_parameters.json`); the values are ours, such as
the specification allows.
"""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

NAMES = json.loads((Path(__file__).parents[1] / "extension" / "openai_parameters.json").read_text())
WORKS, REFUSED = "works", "refused"
USER = [{"role": "user", "content": "Hello!"}]
ADD = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
TOOL = {"type": "function", "function": ADD}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}

# Parameter: (what becomes of it, its value, what has to be sent with it).
SAMPLING: dict[str, Any] = {
    "temperature": (WORKS, 0.5, {}),
    "top_p": (WORKS, 0.9, {}),
    "user": (WORKS, "ann", {}),
    "stream": (WORKS, True, {}),
    "model": (WORKS, "xinfer-demo", {}),
}
COMMON: dict[str, Any] = {
    **SAMPLING,
    "frequency_penalty": (WORKS, 0.5, {}),
    "presence_penalty": (WORKS, -0.5, {}),
    "logit_bias": (WORKS, {"5": -100}, {}),
    "max_tokens": (WORKS, 3, {}),
    "n": (WORKS, 2, {}),
    "seed": (WORKS, 7, {}),
    "stop": (WORKS, ["\n", "x"], {}),
    "stream_options": (WORKS, {"include_usage": True}, {"stream": True}),
}
OPENAIS: dict[str, Any] = {
    "metadata": (WORKS, {"a": "b"}, {}),
    "safety_identifier": (WORKS, "ann", {}),
    "prompt_cache_key": (WORKS, "a", {}),
    "parallel_tool_calls": (WORKS, False, {"tools": [TOOL]}),
    "prompt_cache_options": (REFUSED, {"ttl": "1h"}, {}),
    "prompt_cache_retention": (REFUSED, "24h", {}),
    "service_tier": (REFUSED, "priority", {}),
    "moderation": (REFUSED, {"model": "omni-moderation-latest"}, {}),
}
CHAT: dict[str, Any] = {
    **COMMON,
    **OPENAIS,
    "messages": (WORKS, [{"role": "developer", "content": "Be brief."}, *USER], {}),
    "max_completion_tokens": (WORKS, 3, {}),
    "logprobs": (WORKS, True, {}),
    "top_logprobs": (WORKS, 2, {"logprobs": True}),
    "reasoning_effort": (WORKS, "low", {}),
    "response_format": (
        WORKS,
        {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
        {"max_tokens": 40},
    ),
    "tools": (WORKS, [TOOL], {}),
    "tool_choice": (WORKS, {"type": "function", "function": {"name": "add"}}, {"tools": [TOOL], "max_tokens": 40}),
    "audio": (REFUSED, {"voice": "alloy", "format": "mp3"}, {}),
    "function_call": (REFUSED, "auto", {}),
    "functions": (REFUSED, [ADD], {}),
    "modalities": (REFUSED, ["text", "audio"], {}),
    "prediction": (REFUSED, {"type": "content", "content": "Hello!"}, {}),
    "store": (REFUSED, True, {}),
    "verbosity": (REFUSED, "low", {}),
    "web_search_options": (REFUSED, {}, {}),
}
COMPLETION: dict[str, Any] = {
    **COMMON,
    "prompt": (WORKS, [[1, 2], [3]], {}),
    "best_of": (WORKS, 2, {}),
    "echo": (WORKS, True, {}),
    "logprobs": (WORKS, 2, {}),
    # By this model, which has no tokens to fill in with.
    "suffix": (REFUSED, ".", {}),
}
RESPONSE: dict[str, Any] = {
    **SAMPLING,
    **{name: (what, value, {}) for name, (what, value, _) in OPENAIS.items()},
    "input": (WORKS, [{"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}], {}),
    "instructions": (WORKS, "Be brief.", {}),
    "max_output_tokens": (WORKS, 16, {}),
    "tools": (WORKS, [{"type": "function", **ADD}], {}),
    "tool_choice": (WORKS, "required", {"tools": [{"type": "function", **ADD}], "max_output_tokens": 40}),
    "text": (WORKS, {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}, {"max_output_tokens": 40}),
    "reasoning": (WORKS, {"effort": "low"}, {}),
    "store": (WORKS, False, {}),
    "stream_options": (WORKS, {"include_obfuscation": False}, {"stream": True}),
    "background": (REFUSED, True, {}),
    "context_management": (REFUSED, [{"type": "compaction"}], {}),
    "conversation": (REFUSED, "conv_1", {}),
    "include": (REFUSED, ["message.output_text.logprobs"], {}),
    "max_tool_calls": (REFUSED, 1, {}),
    "previous_response_id": (REFUSED, "resp_unknown", {}),
    "prompt": (REFUSED, {"id": "pmpt_1"}, {}),
    "top_logprobs": (REFUSED, 2, {}),
    "truncation": (REFUSED, "auto", {}),
}
ROUTES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("v1/chat/completions", "CreateChatCompletionRequest", CHAT, {"messages": USER, "max_tokens": 3}),
    ("v1/completions", "CreateCompletionRequest", COMPLETION, {"prompt": "Hello", "max_tokens": 3}),
    ("v1/responses", "CreateResponse", RESPONSE, {"input": "Hello!", "max_output_tokens": 3}),
]
CASES = [
    pytest.param(path, name, case, base, id=f"{path}-{name}")
    for path, _, cases, base in ROUTES
    for name, case in cases.items()
]


@pytest.mark.parametrize(("path", "schema", "cases", "base"), ROUTES)
def test_no_documented_parameter_is_left_out(
    path: str, schema: str, cases: dict[str, Any], base: dict[str, Any]
) -> None:
    assert sorted(cases) == sorted(NAMES[schema])


@pytest.fixture(scope="module")
def http(xinfer_server: Any) -> Any:
    with xinfer_server.client() as client:
        yield client


@pytest.mark.parametrize(("path", "name", "case", "base"), CASES)
def test_a_documented_parameter_works_or_is_refused_by_its_name(
    http: httpx.Client, path: str, name: str, case: tuple[str, Any, dict[str, Any]], base: dict[str, Any]
) -> None:
    what, value, others = case
    answer = http.post(path, json={"model": "xinfer-demo", **base, **others, name: value})

    if what == WORKS:
        assert answer.status_code == 200, answer.text
        assert '"error":{' not in answer.text
    else:
        # An unknown response is not found; everything else is refused.
        assert answer.status_code in ((404, 400) if name == "previous_response_id" else (400,)), answer.text
        assert answer.json()["error"]["param"] == name


@pytest.mark.parametrize(("path", "name", "case", "base"), CASES)
def test_a_parameter_of_the_wrong_type_is_refused_by_its_name(
    http: httpx.Client, path: str, name: str, case: tuple[str, Any, dict[str, Any]], base: dict[str, Any]
) -> None:
    wrong: Any = [[]] if isinstance(case[1], str | bool | int | float | dict) else 3
    answer = http.post(path, json={"model": "xinfer-demo", **base, **case[2], name: wrong})

    assert answer.status_code in (400, 404), answer.text
    assert (answer.json()["error"]["param"] or "").startswith(name)
