"""The Responses API through the unmodified openai client."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def client(xinfer_server: Any) -> Any:
    with openai.OpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token, max_retries=0) as client:
        yield client


def test_a_question_gets_its_answer(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="xinfer-demo", input="What is the capital of France?", temperature=0)

    assert "Paris" in answer.output_text
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    Response.model_validate(answer.model_dump())


def test_the_events_of_a_stream_build_the_same_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="xinfer-demo", input="What is the capital of France?", temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()

    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert "Paris" in text
    assert final.output_text == text


def test_a_conversation_goes_on_from_an_earlier_response(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model="xinfer-demo", input="What is the capital of France?", instructions="Be brief.", temperature=0
    )
    second = client.responses.create(
        model="xinfer-demo", input="Thank you!", previous_response_id=first.id, temperature=0
    )

    assert first.usage is not None
    assert second.usage is not None
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.output_tokens
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model="xinfer-demo", input="More?", previous_response_id="resp_none")
    assert refused.value.param == "previous_response_id"


def test_a_tool_is_called_and_its_result_used(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = client.responses.create(model="xinfer-demo", input=asked, tools=[WEATHER], temperature=0)

    [call] = first.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Rome"})

    result: Any = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": '{"weather": "sunny", "temperature": 21}',
    }
    second = client.responses.create(
        model="xinfer-demo", input=[*asked, call.model_dump(), result], tools=[WEATHER], temperature=0
    )
    third = client.responses.create(
        model="xinfer-demo", input=[result], previous_response_id=first.id, tools=[WEATHER], temperature=0
    )

    assert "sunny" in second.output_text
    assert third.output_text == second.output_text


def test_an_answer_that_is_cut_off_is_incomplete(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="xinfer-demo", input="Tell me a story.", max_output_tokens=3)

    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"background": True}, "background"),
        ({"temperature": 3}, "temperature"),
        ({"input": "word " * 5000}, "input"),
    ],
)
def test_bad_input_names_the_field(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**{"model": "xinfer-demo", "input": "Hello!", **fields})

    assert refused.value.param == param


def test_a_strict_functions_schema_holds_where_the_model_chooses_to_call(client: openai.OpenAI) -> None:
    parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Lima"]}}, "required": ["city"]}
    answer = client.responses.create(
        model="xinfer-demo",
        input="What is the weather in Rome?",
        temperature=0,
        tools=[{**WEATHER, "parameters": parameters, "strict": True}],
    )

    [call] = answer.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["city"] in ("Oslo", "Lima")
