"""How answers and launches are drawn."""

from typing import Any

import msgspec
import pytest
from IPython.utils.capture import capture_output

from xinfer_runtime.client.completion import Completion
from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.launch_progress import TerminalLaunch, launch_line
from xinfer_runtime.notebook.answer_display import Ending, NotebookAnswer, update_interval
from xinfer_runtime.notebook.launch_display import NotebookLaunch, launch_html


def description(source: dict[str, Any]) -> ModelDescription:
    return msgspec.convert(source, ModelDescription)


def test_short_answers_are_updated_at_full_rate_and_long_ones_less_often() -> None:
    assert 15 <= 1 / update_interval(100) <= 20
    assert update_interval(60_000) >= 10 * update_interval(100) * 0.99


@pytest.mark.usefixtures("shell")
def test_fast_tokens_share_updates_and_none_is_lost() -> None:
    now = 0.0
    display = NotebookAnswer(clock=lambda: now)
    with capture_output() as captured:
        for _ in range(200):
            now += 0.005
            display.add("x")
        display.finish(Completion("x" * 200, "stop"), 1.0, Ending.COMPLETE)
    assert len(captured._outputs) <= 20
    assert captured._outputs[-1]["data"]["text/markdown"] == "x" * 200


def test_a_launch_is_a_bar_and_then_a_sentence(model: Any) -> None:
    assert launch_line(description(model(state="loading", progress=0.5)), 1.23) == (
        "demo  [############............]  50%  loading  1.2 s"
    )
    assert launch_line(description(model()), 2.5) == "demo is ready after 2.5 s"


def test_several_replicas_are_counted(model: Any) -> None:
    assert launch_line(description(model(replica=2)), 1) == "demo is ready after 1.0 s (1/2 replicas)"


def test_html_of_a_launch_is_escaped(model: Any) -> None:
    assert "<b>" not in launch_html(description(model("<b>x", "loading")), 1)


@pytest.mark.usefixtures("shell")
def test_a_launch_in_a_notebook_is_one_output(model: Any) -> None:
    with capture_output() as captured:
        show = NotebookLaunch()
        show(description(model(state="loading")))
        show(description(model()))
    assert [output.get("update", False) for output in captured._outputs] == [False, True]
    assert "<progress" in captured._outputs[0]["data"]["text/html"]
    assert captured._outputs[1]["data"]["text/plain"].startswith("demo is ready")


def test_a_launch_without_a_terminal_prints_each_stage_once(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    show = TerminalLaunch(clock=lambda: 0.0)
    for progress in (0.1, 0.2, 0.3):
        show(description(model(state="loading", progress=progress)))
    show(description(model()))
    assert len(capsys.readouterr().out.splitlines()) == 2
