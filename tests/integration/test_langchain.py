"""LangChain's OpenAI integration, unmodified."""

from typing import Any, Literal

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


@pytest.fixture
def model(xinfer_server: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="xinfer-demo",
        base_url=f"{xinfer_server.url}v1",
        api_key=xinfer_server.token,
        temperature=0,
        max_retries=0,
    )


def test_a_question_gets_its_answer_whole_and_streamed(model: ChatOpenAI) -> None:
    whole = model.invoke("What is the capital of France?")
    streamed = "".join(str(chunk.content) for chunk in model.stream("What is the capital of France?"))

    assert "Paris" in str(whole.content)
    assert streamed == whole.content


def test_a_bound_tool_is_called(model: ChatOpenAI) -> None:
    @tool
    def get_weather(city: str) -> str:
        """Get the weather in a city"""
        return f"sunny in {city}"

    answer = model.bind_tools([get_weather]).invoke("What is the weather in Rome?")

    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("get_weather", {"city": "Rome"})]


class City(BaseModel):
    """A city and its weather"""

    name: Literal["Rome", "Paris"]
    sunny: bool


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_has_the_shape_that_was_asked_for(model: ChatOpenAI, method: Any) -> None:
    assert isinstance(model.with_structured_output(City, method=method).invoke("How is the weather?"), City)


def test_the_responses_api_says_the_same_and_streams(model: ChatOpenAI) -> None:
    responses = model.model_copy(update={"use_responses_api": True})

    assert "Paris" in responses.invoke("What is the capital of France?").text
    assert "Paris" in "".join(chunk.text for chunk in responses.stream("What is the capital of France?"))
