from typing import Any

import msgspec
import pytest

from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.model_view import ModelTable, ModelView
from xinfer_runtime.client.printable import printable
from xinfer_runtime.client.table import describe_state, format_bytes, html_table, text_table


def description(source: dict[str, Any]) -> ModelDescription:
    return msgspec.convert(source, ModelDescription)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (126531665, "121 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_a_model_that_comes_up_shows_its_progress(model: Any) -> None:
    assert describe_state(description(model(state="loading", progress=0.42))) == "loading 42%"


def test_a_failed_model_shows_the_reason(model: Any) -> None:
    assert describe_state(description(model(state="failed", message="no memory"))) == "failed: no memory"


def test_the_text_table_has_a_row_for_each_model(model: Any) -> None:
    lines = text_table([description(model("a")), description(model("b"))]).splitlines()
    assert [line.split()[0] for line in lines] == ["model", "a", "b"]


def test_reasons_are_whole_beneath_the_text_table(model: Any) -> None:
    reason = "xinfer-demo-0 was given up after 10 crashes in a row:\nthe last line of its log"
    broken, well = description(model("broken", "failed", message=reason)), description(model("well"))
    table, beneath = text_table([broken, well]).split("\n\n")
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [["broken", "failed"], ["well", "ready"]]
    assert max(map(len, table.splitlines())) == max(map(len, text_table([well, well]).splitlines())) + 2
    assert beneath == f"broken failed: {reason}"


def test_an_empty_table_says_how_to_launch() -> None:
    assert "%xinfer launch" in text_table([])
    assert "%xinfer launch" in html_table([])


def test_html_from_outside_is_escaped(model: Any) -> None:
    html = html_table([description(model("<script>alert(1)</script>", "failed", message="<img src=x>"))])
    assert "<script" not in html
    assert "<img" not in html


def test_terminal_control_characters_are_removed() -> None:
    assert printable("a\x1b]52;c;eA==\x07b\x9bc\td\ne") == "a]52;c;eA==bc\td\ne"


def test_handles_and_tables_show_no_key(model: Any) -> None:
    view = ModelView(description(model()), Endpoint("http://host/", "secret"))
    table = ModelTable([view])
    assert "secret" not in repr(view) + view._repr_html_() + repr(table) + table._repr_html_()
    assert view.base_url == "http://host/v1"
