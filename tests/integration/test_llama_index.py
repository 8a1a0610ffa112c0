"""LlamaIndex, unmodified. It asks for an older openai package than this environment has, so it runs in its own."""

import json
import subprocess
from typing import Any

import pytest
from tests.integration.client_environments import python_script

REQUIREMENTS = ("llama-index-llms-openai-like==0.8.1",)


@pytest.mark.timeout(600)
def test_chat_streams_completions_and_tools_work(xinfer_server: Any) -> None:
    command = python_script("ask_llama_index.py", *REQUIREMENTS)
    run = subprocess.run(
        [*command, f"{xinfer_server.url}v1", xinfer_server.token], capture_output=True, text=True, timeout=200
    )

    assert run.returncode == 0, run.stderr[-4000:]
    understood = json.loads(run.stdout)
    assert "Paris" in understood["whole"]
    assert understood["stream"] == understood["asynchronous"] == understood["whole"]
    assert understood["completion"]
    assert understood["calls"] == [["get_weather", {"city": "Rome"}]]
