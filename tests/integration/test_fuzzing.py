"""Every route, asked for a minute by schemathesis with what its own description allows and with what it forbids."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import XinferServer, start_server

SECONDS = 60
# A schema cannot say which fields go together, so that what it allows may still be refused.
EXCLUDED = "positive_data_acceptance"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    """A server of its own: the fuzzer may end models."""
    running = start_server(tmp_path_factory.mktemp("fuzzing"))
    try:
        running.launch(model_name="xinfer-demo")
        yield running
    finally:
        running.stop()


def fuzz(server: XinferServer, directory: Path, seconds: int, *options: str) -> None:
    """Ask for so many seconds. 503 is what a launch for which no node has room is answered, and no failure of ours."""
    (directory / "schemathesis.toml").write_text(
        '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "4xx", "503"]\n'
    )
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}openapi.json"]
    command += ["--header", f"Authorization: Bearer {server.token}", "--max-time", str(seconds), "--warnings", "off"]
    command += ["--phases", "coverage,fuzzing", "--exclude-checks", EXCLUDED, "--continue-on-failure", "--no-shrink"]
    fuzzing = subprocess.run([*command, *options], capture_output=True, text=True, cwd=directory, timeout=280)

    assert fuzzing.returncode == 0, fuzzing.stdout[-6000:] + fuzzing.stderr[-2000:]
    assert "Traceback" not in server.log.read_text()
    with server.client() as http:
        assert http.get("v1/models").status_code == 200


# What a fuzzer may end or empty would leave nothing to ask after it.
DRAIN = "/xinfer/drain"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_no_request_makes_the_server_fail_or_answer_other_than_it_says(server: XinferServer, tmp_path: Path) -> None:
    fuzz(server, tmp_path, SECONDS, "--exclude-path", DRAIN)
    fuzz(server, tmp_path, 5, "--include-path", DRAIN)
