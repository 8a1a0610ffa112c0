"""The console script against a real server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def xinfer(xinfer_server: Any) -> Any:
    """Runs `jupyter-xinfer` as in a terminal of the server, and returns what it printed."""

    def run(*argv: str, text: str = "") -> str:
        script = Path(sys.executable).with_name("jupyter-xinfer")
        done = subprocess.run(
            [script, *argv], env=xinfer_server.env, input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_model_is_launched_asked_and_stopped(xinfer: Any) -> None:
    assert xinfer("launch", "xinfer-demo", "--model-uid", "cli-test") == "cli-test\n"
    assert "cli-test" in [model["id"] for model in json.loads(xinfer("list", "--json"))]
    assert "Paris" in xinfer("chat", "cli-test", "What is the capital of France?", "--temperature", "0")
    assert xinfer("stop", "cli-test") == "Stopped cli-test.\n"


def test_the_prompt_may_come_through_a_pipe(xinfer: Any) -> None:
    assert "19" in xinfer("chat", "xinfer-demo", "--temperature", "0", text="What is 12 + 7?")
