"""Every fault once, under load: nothing is lost, nothing is wrong, and nothing is left behind."""

from pathlib import Path

import pytest
from tests.chaos.run import run


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_no_failure_reaches_a_client(tmp_path: Path) -> None:
    report = await run(tmp_path, minutes=0, streams=4, seed=7, pause=0.2)

    problems = [problem for episode in report.episodes for problem in episode.problems]
    assert report.requests["completed"] > 50
    assert not {"lost", "other text", "retryable"} & set(report.requests), problems
    assert not report.broken
    assert not report.left_behind
