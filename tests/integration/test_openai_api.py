"""The unmodified openai client against a real server, cluster and model."""

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

CAPITAL: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
OTHER: ChatCompletionToolParam = {"type": "function", "function": {"name": "tell_time", "parameters": {}}}
STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def client(xinfer_server: Any) -> Any:
    with openai.OpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0) as client:
        yield client


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert "xinfer-demo" in [model.id for model in client.models.list()]
    assert client.models.retrieve("xinfer-demo").owned_by == "jupyter-xinfer"


def test_a_question_gets_its_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="xinfer-demo", messages=CAPITAL, temperature=0)

    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_the_same_as_a_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="xinfer-demo", messages=CAPITAL, temperature=0)
    stream = client.chat.completions.create(
        model="xinfer-demo",
        messages=CAPITAL,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage


def test_max_tokens_ends_with_length(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="xinfer-demo", messages=STORY, max_tokens=3, temperature=0)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_a_stop_string_ends_the_answer_and_is_not_in_it(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="xinfer-demo", messages=CAPITAL, temperature=0)
    text = whole.choices[0].message.content or ""
    stop = text[5:8]

    cut = client.chat.completions.create(model="xinfer-demo", messages=CAPITAL, temperature=0, stop=stop)

    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_a_seed_repeats_a_sampled_answer(client: openai.OpenAI) -> None:
    def story(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model="xinfer-demo", messages=STORY, seed=seed, temperature=1.5, max_tokens=40
        )
        return answer.choices[0].message.content

    assert story(1) == story(1)
    assert len({story(seed) for seed in range(4)}) > 1


def test_a_tool_is_called_and_its_result_used(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = client.chat.completions.create(model="xinfer-demo", messages=messages, tools=[WEATHER], temperature=0)

    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Rome"}

    messages += [
        {"role": "assistant", "tool_calls": [call.model_dump()]},  # type: ignore[list-item, misc]
        {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "sunny", "temperature": 21}'},
    ]
    second = client.chat.completions.create(model="xinfer-demo", messages=messages, tools=[WEATHER], temperature=0)

    assert second.choices[0].finish_reason == "stop"
    assert "sunny" in (second.choices[0].message.content or "")


def test_a_text_completion_continues_the_prompt(client: openai.OpenAI) -> None:
    prompt = "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    answer = client.completions.create(model="xinfer-demo", prompt=prompt, max_tokens=8, temperature=0)
    streamed = client.completions.create(model="xinfer-demo", prompt=prompt, max_tokens=8, temperature=0, stream=True)

    assert answer.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


@pytest.mark.parametrize(
    ("error", "status", "param", "fields"),
    [
        (openai.NotFoundError, 404, "model", {"model": "no-such-model"}),
        (openai.BadRequestError, 400, "temperature", {"temperature": 9}),
        (openai.BadRequestError, 400, "messages[0].content", {"messages": [{"role": "user", "content": 7}]}),
        (openai.BadRequestError, 400, "stop", {"stop": [""]}),
        (openai.BadRequestError, 400, "bogus", {"extra_body": {"bogus": 1}}),
    ],
)
def test_bad_input_names_the_field(
    client: openai.OpenAI, error: type[openai.APIStatusError], status: int, param: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(error) as refused:
        client.chat.completions.create(**{"model": "xinfer-demo", "messages": CAPITAL, **fields})

    assert refused.value.status_code == status
    assert refused.value.body["param"] == param  # type: ignore[index, call-overload]


def test_malformed_json_is_a_400(xinfer_server: Any) -> None:
    with xinfer_server.client() as http:
        answer = http.post("v1/chat/completions", content=b'{"model": ')

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(client: openai.OpenAI) -> None:
    context = client.models.retrieve("xinfer-demo").model_dump()["context_length"]

    with pytest.raises(openai.BadRequestError, match=str(context)) as refused:
        client.chat.completions.create(
            model="xinfer-demo", messages=[{"role": "user", "content": "word " * 4 * context}]
        )

    assert refused.value.code == "context_length_exceeded"


def test_bad_requests_leave_the_others_alone(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="xinfer-demo", messages=STORY, stream=True, temperature=0)
    next(stream)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="xinfer-demo", messages=[{"role": "user", "content": "x " * 9000}])

    assert [chunk.choices[0].finish_reason for chunk in stream if chunk.choices][-1] == "stop"


def test_choices_of_one_request_are_numbered_in_one_body_and_in_a_stream(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "xinfer-demo", "messages": STORY, "n": 3, "seed": 5, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    texts = dict.fromkeys(range(3), "")
    *chunks, last = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    # What is drawn may depend on which requests share a batch, so the texts themselves are not compared.
    assert all(choice.message.content for choice in whole.choices)
    assert len(set(texts.values())) > 1
    assert all(texts.values())
    assert whole.usage is not None
    assert last.usage is not None
    assert whole.usage.completion_tokens == 36
    assert last.usage.total_tokens == whole.usage.total_tokens


def test_a_list_of_prompts_gets_a_choice_each_with_its_echo(client: openai.OpenAI) -> None:
    prompts = ["Once upon a time", "The sun"]
    answer = client.completions.create(model="xinfer-demo", prompt=prompts, max_tokens=4, echo=True, temperature=0)

    assert [choice.index for choice in answer.choices] == [0, 1]
    for prompt, choice in zip(prompts, answer.choices, strict=True):
        assert choice.text.startswith(prompt)
        assert len(choice.text) > len(prompt)


def test_log_probabilities_spell_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="xinfer-demo", messages=CAPITAL, temperature=0, logprobs=True, top_logprobs=2
    )
    streamed = client.chat.completions.create(
        model="xinfer-demo", messages=CAPITAL, temperature=0, logprobs=True, stream=True
    )

    choice = answer.choices[0]
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert b"".join(bytes(token.bytes or ()) for token in tokens).decode() == choice.message.content
    assert all(token.logprob <= 0 and token.top_logprobs[0].token == token.token for token in tokens)
    pieces = [chunk.choices[0].logprobs for chunk in streamed if chunk.choices]
    assert [t.token for piece in pieces if piece for t in piece.content or ()] == [token.token for token in tokens]


def test_log_probabilities_of_a_text_completion_have_the_older_shape(client: openai.OpenAI) -> None:
    choice = client.completions.create(
        model="xinfer-demo", prompt="Once upon a time", max_tokens=4, logprobs=2, temperature=0
    ).choices[0]

    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or ()) == choice.text
    assert [len(top) for top in choice.logprobs.top_logprobs or ()] == [2, 2, 2, 2]


def test_a_bias_keeps_a_token_out(client: openai.OpenAI) -> None:
    def first_token(**fields: Any) -> str:
        answer = client.completions.create(
            model="xinfer-demo", prompt="Once upon a", max_tokens=1, temperature=0, **fields
        )
        return answer.choices[0].text

    likely = first_token()
    for token in range(300, 800):
        if first_token(logit_bias={str(token): 100}) != likely:
            return
    pytest.fail("no bias changed the first token")


NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize(
    "choice",
    ["required", NAMED, {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}],
)
def test_a_forced_call_has_arguments_of_the_tools_schema(client: openai.OpenAI, choice: Any) -> None:
    asked: Any = [{"role": "user", "content": "Hello!"}]
    parameters = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    tool = {"name": "get_weather", "parameters": parameters}
    fields: dict[str, Any] = {
        "model": "xinfer-demo",
        "messages": asked,
        "tools": [{"type": "function", "function": tool}, *([OTHER] if isinstance(choice, dict) else [])],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "seed": 1,
    }
    whole = client.chat.completions.create(**fields)
    with client.chat.completions.stream(**fields) as stream:
        streamed = stream.get_final_completion()

    for answer in (whole, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        [call] = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert list(json.loads(call.function.arguments)) == ["city"]


@pytest.mark.parametrize("strict", [True, False])
def test_a_call_of_the_models_own_choice_has_arguments_of_a_strict_functions_schema(
    client: openai.OpenAI, strict: bool
) -> None:
    """The city that is asked for is none of those that the schema allows."""
    parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Lima"]}}, "required": ["city"]}
    function = {**WEATHER["function"], "parameters": parameters, "strict": strict}
    fields: dict[str, Any] = {"model": "xinfer-demo", "temperature": 0, "max_tokens": 60}
    fields["tools"] = [{"type": "function", "function": function}, OTHER]
    asked: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
    whole = client.chat.completions.create(messages=asked, **fields)
    with client.chat.completions.stream(messages=asked, **fields) as stream:
        streamed = stream.get_final_completion()

    for answer in (whole, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        [call] = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert (json.loads(call.function.arguments)["city"] in ("Oslo", "Lima")) is strict
    greeting = client.chat.completions.create(messages=[{"role": "user", "content": "Hello!"}], **fields)
    assert greeting.choices[0].finish_reason == "stop"
    assert greeting.choices[0].message.content
    assert not greeting.choices[0].message.tool_calls


def test_an_answer_conforms_to_the_schema_that_was_asked_for(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "known": {"type": "boolean"}},
        "required": ["capital", "known"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="xinfer-demo",
        messages=CAPITAL,
        response_format={"type": "json_schema", "json_schema": {"name": "capital", "schema": schema, "strict": True}},
        seed=1,
    )

    assert sorted(json.loads(answer.choices[0].message.content or "")) == ["capital", "known"]


def test_a_guided_choice_is_one_of_those_given(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="xinfer-demo", messages=CAPITAL, extra_body={"guided_choice": ["blue", "green"]}
    )

    assert answer.choices[0].message.content in ("blue", "green")


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("guided_json", {"extra_body": {"guided_json": {"$ref": "#/$defs/missing"}}}),
        ("guided_grammar", {"extra_body": {"guided_grammar": "start: missing"}}),
        (
            "response_format",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"$ref": "#/$defs/missing"}},
                }
            },
        ),
        (
            "tools",
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/$defs/missing"}}}],
                "tool_choice": "required",
            },
        ),
        (
            "tools",
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}, "strict": True}}]},
        ),
        (
            "tools[1].function.strict",
            {
                "tools": [OTHER, {"type": "function", "function": {"name": "f", "strict": True}}],
                "extra_body": {"guided_grammar": 'start: "a"'},
            },
        ),
    ],
)
def test_a_form_that_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, param: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "xinfer-demo", "messages": CAPITAL, **fields})

    assert refused.value.param == param


def test_an_image_for_a_model_that_takes_text_only_is_named(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
            ],
        },
    ]
    with pytest.raises(openai.BadRequestError, match="takes text only") as refused:
        client.chat.completions.create(model="xinfer-demo", messages=messages)

    assert refused.value.param == "messages[1].content[1]"
