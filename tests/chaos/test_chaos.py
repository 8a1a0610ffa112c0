"""Three minutes of faults under load, each once and then at random: nothing is lost or wrong, nothing left behind."""

from pathlib import Path

import pytest
from tests.chaos.run import run


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_failure_reaches_a_client(tmp_path: Path) -> None:
    report = await run(tmp_path, minutes=3, streams=4, seed=7, pause=0.2)

    problems = [problem for episode in report.episodes for problem in episode.problems]
    assert report.requests["completed"] > 50
    assert not {"lost", "other text", "retryable"} & set(report.requests), problems
    assert not report.broken
    assert not report.left_behind
