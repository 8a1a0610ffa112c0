"""`jupyter xinfer local`: what it tells Jupyter."""

from collections.abc import Sequence
from typing import Any

import pytest

from jupyter_xinfer.cli import local, main


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The command lines with which a Jupyter application was started."""
    calls: list[Sequence[str]] = []

    class Application:
        @staticmethod
        def launch_instance(argv: Sequence[str]) -> None:
            calls.append(argv)

    monkeypatch.setattr(local, "application", lambda: Application)
    return calls


def test_options_are_given_to_jupyter_in_its_words(started: list[Any]) -> None:
    options = ["--host", "0.0.0.0", "--port", "9997", "--launch", "a", "--launch", "b", "--scheduler", "tls://h:1"]
    assert main(["local", *options]) == 0
    for expected in (
        "--ServerApp.ip=0.0.0.0",
        "--ServerApp.port=9997",
        "--no-browser",
        "--XinferApp.launch=a",
        "--XinferApp.launch=b",
        "--XinferApp.scheduler_address=tls://h:1",
    ):
        assert expected in started[0]


def test_what_is_jupyters_goes_on_unchanged_and_last(started: list[Any]) -> None:
    main(["local", "--ServerApp.token=x", "--debug", "--port", "1", "--allow-root", "--config", "file.py"])
    assert started[0][-5:] == ["--ServerApp.token=x", "--debug", "--allow-root", "--config", "file.py"]


def test_jupyters_defaults_are_left_alone(started: list[Any]) -> None:
    main(["local"])
    assert not [option for option in started[0] if "ip=" in option or "port=" in option or "launch" in option]


def test_a_browser_opens_on_request(started: list[Any]) -> None:
    main(["local", "--browser"])
    assert "--no-browser" not in started[0]


def test_without_jupyterlab_the_server_runs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)
    assert local.application().__name__ == "ServerApp"
    assert "JupyterLab is not installed" in capsys.readouterr().err
