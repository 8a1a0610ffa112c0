"""The Messages API through the unmodified anthropic client, which sends its key as `x-api-key`."""

from typing import Any

import anthropic
import pytest

CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0}
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def client(xinfer_server: Any) -> Any:
    url = xinfer_server.url.rstrip("/")
    with anthropic.Anthropic(base_url=url, api_key=xinfer_server.token, max_retries=0) as client:
        yield client


def test_a_question_gets_its_answer(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model="xinfer-demo", messages=CAPITAL, max_tokens=50, extra_body=GREEDY)

    [block] = answer.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0


def test_a_stream_says_the_same(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model="xinfer-demo", messages=CAPITAL, max_tokens=50, extra_body=GREEDY)
    with client.messages.stream(model="xinfer-demo", messages=CAPITAL, max_tokens=50, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text == getattr(final.content[0], "text", None) == getattr(whole.content[0], "text", None)
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_used(client: anthropic.Anthropic, streamed: bool) -> None:
    messages: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
    asked: Any = {"model": "xinfer-demo", "max_tokens": 80, "tools": [WEATHER], "extra_body": GREEDY}
    if streamed:
        with client.messages.stream(messages=messages, **asked) as stream:
            first = stream.get_final_message()
    else:
        first = client.messages.create(messages=messages, **asked)

    assert first.stop_reason == "tool_use"
    [call] = first.content
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("get_weather", {"city": "Rome"})

    result = {"type": "tool_result", "tool_use_id": call.id, "content": '{"weather": "sunny", "temperature": 21}'}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = client.messages.create(messages=messages, **asked)

    assert "sunny" in getattr(second.content[0], "text", "")


def test_a_strict_tools_schema_holds_where_the_model_chooses_to_call(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Lima"]}}, "required": ["city"]}
    answer = client.messages.create(
        model="xinfer-demo",
        messages=[{"role": "user", "content": "What is the weather in Rome?"}],
        max_tokens=2000,
        tools=[{**WEATHER, "input_schema": schema, "strict": True}],
        thinking={"type": "enabled", "budget_tokens": 1024},
        extra_body=GREEDY,
    )

    [call] = answer.content
    assert call.type == "tool_use"
    assert call.input["city"] in ("Oslo", "Lima")


def test_a_budget_of_thoughts_that_leaves_no_room_for_an_answer_is_refused(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"thinking\.budget_tokens"):
        client.messages.create(
            model="xinfer-demo",
            messages=CAPITAL,
            max_tokens=1024,
            thinking={"type": "enabled", "budget_tokens": 1024},
        )


def test_a_stop_sequence_is_named_as_what_ended_the_answer(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "xinfer-demo", "max_tokens": 40, "messages": [{"role": "user", "content": "Hello!"}]}
    text = client.messages.create(**asked, extra_body=GREEDY).content[0].text  # type: ignore[union-attr]

    cut = client.messages.create(**asked, extra_body=GREEDY, stop_sequences=[text[3:6]])
    assert cut.content[0].text == text[: text.index(text[3:6])]  # type: ignore[union-attr]
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", text[3:6])


def test_an_answer_has_the_form_that_was_asked_for(client: anthropic.Anthropic) -> None:
    def ask(schema: dict[str, object]) -> anthropic.types.Message:
        wanted: Any = {"format": {"type": "json_schema", "schema": schema}}
        return client.messages.create(model="xinfer-demo", max_tokens=40, messages=CAPITAL, output_config=wanted)

    assert ask({"enum": ["Paris", "Rome"]}).content[0].text in ('"Paris"', '"Rome"')  # type: ignore[union-attr]
    with pytest.raises(anthropic.BadRequestError, match="'param': 'output_config'"):
        ask({"type": "object", "not": {}})


def test_tokens_are_counted_as_the_prompt_has_them(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model="xinfer-demo", messages=CAPITAL, max_tokens=1, system="Be brief.")
    counted = client.messages.count_tokens(model="xinfer-demo", messages=CAPITAL, system="Be brief.")

    cached = answer.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == answer.usage.input_tokens + cached


def test_errors_have_the_shape_that_the_client_reads(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="no-such-model", messages=CAPITAL, max_tokens=5)
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(model="xinfer-demo", messages=CAPITAL, max_tokens=5, extra_body={"temperature": 2})

    assert missing.value.body["type"] == "error"  # type: ignore[index, call-overload]
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index, call-overload]


def test_a_wrong_key_is_refused(xinfer_server: Any) -> None:
    with (
        anthropic.Anthropic(base_url=xinfer_server.url.rstrip("/"), api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.APIStatusError) as refused,
    ):
        stranger.messages.create(model="xinfer-demo", messages=CAPITAL, max_tokens=5)

    assert refused.value.status_code in (401, 403)
