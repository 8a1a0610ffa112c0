"""What callers may send, and which field a refusal names."""

import json
from pathlib import Path
from typing import Any

import pytest

from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openai_requests import ChatRequest, CompletionRequest
from jupyter_xinfer.protocol.responses_requests import ResponsesRequest
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import DryParams, GenerateRequest, MirostatParams, SamplingParams

USER = {"role": "user", "content": "Hello!"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
STRICT = {"type": "function", "function": {**WEATHER["function"], "name": "strict", "strict": True}}  # type: ignore[dict-item]


def chat(**fields: Any) -> GenerateRequest:
    body = {"model": "m", "messages": [USER], **fields}
    return decode(json.dumps(body).encode(), ChatRequest).to_generate("id")


def completion(**fields: Any) -> GenerateRequest:
    return completions(**fields)[0]


def completions(**fields: Any) -> list[GenerateRequest]:
    request = decode(json.dumps({"model": "m", "prompt": "a", **fields}).encode(), CompletionRequest)
    return request.requests("id")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "tool", "content": "4"}]}, "messages[1].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        ({"model": ""}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": "a" * 1025}, "stop"),
        ({"messages": [USER] * 2049}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 1025}]}, "messages[0].content"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"guided_json": "no schema"}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "required", "guided_regex": "a"}, "tool_choice"),
        ({"tools": [WEATHER, STRICT], "guided_grammar": 'start: "a"'}, "tools[1].function.strict"),
        ({"thinking_budget": -1}, "thinking_budget"),
        ({"functions": []}, "functions"),
        ({"store": True}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {"include_obfuscation": True}, "stream": True}, "stream_options"),
        ({"dry_multiplier": -1}, "dry_multiplier"),
        ({"dry_base": 0.5}, "dry_base"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": [""]}, "dry_sequence_breakers"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": ["x" * 41]}, "dry_sequence_breakers"),
        ({"dry_multiplier": 1, "dry_sequence_breakers": ["x"] * 33}, "dry_sequence_breakers"),
        ({"mirostat_mode": 3}, "mirostat_mode"),
        ({"mirostat_tau": 0}, "mirostat_tau"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_refused_chat_request_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)

    assert refused.value.param == param
    assert param in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "b"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, "n"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"suffix": "x", "prompt": [1, 2]}, "suffix"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 20, "prompt": ["a"] * 7}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
def test_a_refused_completion_request_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        completion(**fields)

    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(body, ChatRequest)


def test_sampling_parameters_reach_the_replica() -> None:
    sampling = chat(
        temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, seed=7, stop="END", presence_penalty=1, frequency_penalty=-1
    ).sampling

    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 5, 0.1)
    assert (sampling.seed, sampling.stop) == (7, ("END",))
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)


def test_sampling_parameters_beyond_openais_reach_the_replica() -> None:
    sampling = chat(typical_p=0.5, xtc_probability=0.25, xtc_threshold=0.2).sampling

    assert (sampling.typical_p, sampling.xtc_probability, sampling.xtc_threshold) == (0.5, 0.25, 0.2)
    assert chat(xtc_probability=0.1).sampling.xtc_threshold == SamplingParams().xtc_threshold  # Stated twice.


def test_dry_and_mirostat_reach_the_replica() -> None:
    assert chat().sampling.dry is None
    assert chat(dry_multiplier=0, dry_base=2.0).sampling.dry is None
    assert chat(dry_multiplier=0.8).sampling.dry == DryParams(multiplier=0.8)
    everything = chat(
        dry_multiplier=0.8, dry_base=2, dry_allowed_length=3, dry_penalty_last_n=50, dry_sequence_breakers=["\n", "."]
    ).sampling.dry
    assert everything == DryParams(
        multiplier=0.8, base=2, allowed_length=3, penalty_last_n=50, sequence_breakers=("\n", ".")
    )
    assert chat(mirostat_mode=0, mirostat_tau=2).sampling.mirostat is None
    assert chat(mirostat_mode=2).sampling.mirostat == MirostatParams(mode=2)
    assert chat(mirostat_mode=1, mirostat_tau=3, mirostat_eta=0.2).sampling.mirostat == MirostatParams(
        mode=1, tau=3, eta=0.2
    )


def test_max_completion_tokens_is_the_newer_name_of_max_tokens() -> None:
    assert chat(max_tokens=5).sampling.max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=6).sampling.max_tokens == 6


def test_content_parts_become_one_text() -> None:
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "world"}]

    messages = chat(messages=[{"role": "user", "content": parts}]).messages

    assert messages is not None
    assert messages[0].content == "Hello, world"


def test_the_developer_role_is_the_system_role() -> None:
    messages = chat(messages=[{"role": "developer", "content": "Be brief."}, USER]).messages

    assert messages is not None
    assert messages[0].role == "system"


def test_a_tool_conversation_is_carried_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    request = chat(
        tools=[WEATHER],
        messages=[
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    )

    assert request.parse_tool_calls
    assert request.messages is not None
    assert request.messages[1].tool_calls[0].arguments == '{"city": "Rome"}'
    assert request.messages[2].tool_call_id == "c1"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_that_come_back_reach_the_template(name: str) -> None:
    messages = chat(messages=[USER, {"role": "assistant", "content": "Hi", name: "Hm."}, {**USER, name: "x"}]).messages

    assert messages is not None
    assert [message.reasoning for message in messages] == [None, "Hm.", None]


def test_a_budget_of_thoughts_reaches_the_replica() -> None:
    assert chat(thinking_budget=0).thinking_budget == 0
    assert chat().thinking_budget is None


def test_without_parallel_calls_the_output_ends_with_the_first() -> None:
    assert chat(tools=[WEATHER], parallel_tool_calls=False).one_call
    assert not chat(tools=[WEATHER]).one_call


def test_a_strict_function_reaches_the_replica_as_one() -> None:
    first, second = chat(tools=[WEATHER, STRICT]).tools

    assert "strict" not in first["function"]
    assert second["function"]["strict"] is True


def test_a_strict_function_that_is_not_offered_is_no_matter() -> None:
    assert chat(tools=[WEATHER, STRICT], tool_choice="none", guided_grammar='start: "a"').tools == ()


def test_tool_choice_none_hides_the_tools_from_the_model() -> None:
    request = chat(tools=[WEATHER], tool_choice="none")

    assert request.tools == ()
    assert not request.parse_tool_calls


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_a_prompt_may_be_token_ids(prompt: list[Any]) -> None:
    assert completion(prompt=prompt).token_ids == (1, 2, 3)


def test_an_echo_of_token_ids_is_their_text() -> None:
    body = decode(b'{"model": "m", "prompt": [[1, 2], "a", [1, 2]], "echo": true, "n": 2}', CompletionRequest)

    assert body.echoed_tokens() == [(1, 2)]
    assert body.echoes({(1, 2): "xy"}) == ["xy", "xy", "a", "a", "xy", "xy"]


def test_a_suffix_reaches_the_replica() -> None:
    assert completion(suffix=")").suffix == ")"
    assert completion(suffix="").suffix is None


def test_best_of_makes_more_completions_than_choices_and_asks_how_probable_they_are() -> None:
    requests = completions(best_of=4, n=2, prompt=["a", "b"])

    assert [request.prompt for request in requests] == ["a"] * 4 + ["b"] * 4
    assert all(request.sampling.logprobs == 0 for request in requests)
    assert completion(best_of=2, n=2).sampling.logprobs is None


def test_a_list_of_one_prompt_is_that_prompt() -> None:
    assert completion(prompt=["once"]).prompt == "once"


def test_text_completions_make_sixteen_tokens_unless_told_otherwise() -> None:
    assert completion().sampling.max_tokens == 16
    assert completion(max_tokens=3).sampling.max_tokens == 3


PARAMETERS = json.loads(Path(__file__).with_name("openai_parameters.json").read_text())


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (ChatRequest, "CreateChatCompletionRequest"),
        (CompletionRequest, "CreateCompletionRequest"),
        (ResponsesRequest, "CreateResponse"),
    ],
)
def test_every_parameter_that_openai_documents_is_known(kind: type[Any], schema: str) -> None:
    assert set(PARAMETERS[schema]) <= set(kind.__struct_fields__)


@pytest.mark.parametrize("name", ChatRequest.unsupported)
def test_an_unsupported_parameter_may_be_null(name: str) -> None:
    assert chat(**{name: None}).id == "id"


def test_choices_of_a_request_have_seeds_that_follow_from_its_seed() -> None:
    def seeds(n: int) -> list[int | None]:
        body = json.dumps({"model": "m", "messages": [USER], "n": n, "seed": 7}).encode()
        return [request.sampling.seed for request in decode(body, ChatRequest).requests("id")]

    assert seeds(1) == [7]
    assert seeds(4)[:2] == seeds(2)
    assert seeds(2)[0] == 7
    assert len(set(seeds(8))) == 8


def test_each_choice_of_each_prompt_is_a_request_of_its_own() -> None:
    requests = completions(prompt=["a", "b"], n=2)

    assert [request.prompt for request in requests] == ["a", "a", "b", "b"]
    assert len({request.id for request in requests}) == 4


def test_a_list_of_lists_of_token_ids_is_several_prompts() -> None:
    assert [request.token_ids for request in completions(prompt=[[1, 2], [3]])] == [(1, 2), (3,)]


def test_logprobs_and_biases_reach_the_replica() -> None:
    assert chat(logprobs=True).sampling.logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).sampling.logprobs == 3
    assert completion(logprobs=2).sampling.logprobs == 2
    assert chat(logit_bias={"5": -100}).sampling.logit_bias == {5: -100}


@pytest.mark.parametrize(
    ("fields", "kind", "value"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}},
            "json_schema",
            {"type": "array"},
        ),
        ({"response_format": {"type": "json_object", "schema": {"type": "array"}}}, "json_schema", {"type": "array"}),
        ({"guided_json": '{"type": "array"}'}, "json_schema", {"type": "array"}),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["yes", "no"]}, "choice", ["yes", "no"]),
        ({"guided_grammar": 'start: "a"'}, "grammar", 'start: "a"'),
    ],
)
def test_a_wanted_form_becomes_a_constraint(fields: dict[str, Any], kind: str, value: Any) -> None:
    constraint = chat(**fields).constraint

    assert constraint is not None
    assert (constraint.kind, constraint.value) == (kind, value)


def test_a_schema_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"items": schema}

    with pytest.raises(InvalidRequest, match="deeper"):
        chat(guided_json=schema)


def test_thoughts_are_switched_off_where_the_output_has_a_form() -> None:
    assert chat(guided_regex="a").template_kwargs == {"enable_thinking": False}
    assert chat(reasoning_effort="low").template_kwargs == {"reasoning_effort": "low"}
    assert chat(reasoning_effort="none").template_kwargs["enable_thinking"] is False
