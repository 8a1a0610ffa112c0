"""The tutorial, run from top to bottom in a kernel of a real server."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(PATH, as_version=4)


def test_the_tutorial_is_saved_without_outputs(notebook: nbformat.NotebookNode) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_the_tutorial_runs(notebook: nbformat.NotebookNode, xinfer_server: Any, tmp_path: Path) -> None:
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute(env=xinfer_server.env)

    outputs = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    launched = outputs["%xinfer launch xinfer-demo --uid quickstart"][-1]
    assert "quickstart is ready" in launched["data"]["text/plain"]
    prompted = outputs["%%xinfer --temperature 0\nWhat is the capital of France?"][-1]
    assert "Paris" in prompted["data"]["text/markdown"]
    assert prompted["metadata"]["xinfer"]["finish_reason"] == "stop"
    assert any("get_weather" in str(shown) for source, shown in outputs.items() if source.startswith("import json"))
    assert not [shown for shown in outputs.values() if xinfer_server.token in str(shown)]

    with xinfer_server.client() as http:
        assert [model["id"] for model in http.get("v1/models").json()["data"]] == ["xinfer-demo"]
