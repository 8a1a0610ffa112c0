"""`jupyter xinfer usage`."""

import json
import logging
from pathlib import Path

import pytest

from jupyter_xinfer.auth.ledger import Ledger
from jupyter_xinfer.cli import main


@pytest.fixture
async def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XINFER_HOME", str(tmp_path))
    ledger = Ledger(tmp_path, logging.getLogger(__name__))
    ledger.add("user:ann", "a", 1000, 1)
    ledger.add("user:ann", "b", 2000, 2)
    ledger.add("api_key:ci", "a", 5, 5)
    await ledger.close()


@pytest.mark.usefixtures("used")
def test_usage_is_added_up_by_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--by", "caller", "--json"]) == 0
    ann = json.loads(capsys.readouterr().out)[1]
    assert ann == {"caller": "user:ann", "requests": 2, "prompt_tokens": 3000, "completion_tokens": 3}


@pytest.mark.usefixtures("used")
def test_the_table_names_caller_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[3].split() == ["user:ann", "b", "1", "2,000", "2"]


def test_an_unknown_key_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--by", "colour"]) == 1
    assert "colour" in capsys.readouterr().err
