"""The openai package for Node.js, unmodified."""

import json
import subprocess
from typing import Any

import pytest
from tests.integration.client_environments import node_script

VERSION = "7.57.0"


@pytest.fixture(scope="module")
def found(xinfer_server: Any) -> dict[str, Any]:
    """What the client understood of all that it asked."""
    command = node_script("openai_node.mjs", "openai", VERSION)
    run = subprocess.run(
        [*command, f"{xinfer_server.url}v1", xinfer_server.token], capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stderr
    understood: dict[str, Any] = json.loads(run.stdout)
    return understood


pytestmark = pytest.mark.timeout(400)


def test_models_are_listed(found: dict[str, Any]) -> None:
    assert "xinfer-demo" in found["models"]


def test_a_stream_assembles_to_what_a_whole_answer_says(found: dict[str, Any]) -> None:
    assert "Paris" in found["whole"]["text"]
    assert found["whole"]["id"].startswith("req-")
    assert found["stream"]["pieces"] == found["stream"]["text"] == found["whole"]["text"]
    assert found["stream"]["usage"]["total_tokens"] == found["whole"]["usage"]["total_tokens"]


def test_calls_of_tools_are_assembled_and_run(found: dict[str, Any]) -> None:
    [call] = found["calls"]
    assert call["name"] == "get_weather"
    assert set(json.loads(call["arguments"])) == {"city"}
    assert found["tool_results"] == ["sunny in Rome"]


def test_an_output_has_the_form_that_was_asked_for(found: dict[str, Any]) -> None:
    assert found["shaped"]["capital"] in ("Paris", "Rome")


def test_text_completions_take_several_prompts(found: dict[str, Any]) -> None:
    assert found["completions"] == ["One", "Two"]


def test_responses_come_whole_and_streamed(found: dict[str, Any]) -> None:
    assert "Paris" in found["response"]
    assert found["response_stream"] == found["response"]


def test_errors_are_of_the_clients_own_classes(found: dict[str, Any]) -> None:
    assert found["bad"] == {"expected": True, "status": 400, "param": "temperature", "code": "invalid_request"}
    assert found["missing"]["expected"]
    assert found["stranger"]["expected"]


def test_a_stream_may_be_left(found: dict[str, Any]) -> None:
    assert found["aborted"] == 1
