"""A minute of traffic of every kind; docs/engines/llama-cpp.md has twenty."""

import pytest
from tests.soak.run import demo_spec, run

MIB = 8.0
"""For what fills up slowly, such as what the allocator keeps: a leak of 20 kB per request would be more."""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_nothing_is_lost_and_nothing_is_kept() -> None:
    report = await run(minutes=1, seed=11, spec=demo_spec({}), every=5)
    assert not report.problems
    assert {"stop", "length", "aborted", "refused", "out of time"} == set(report.outcomes)
    assert (report.lost_slots, report.cells_in_use) == (0, 0)
    assert report.growth(after=0.5) < MIB
    first, last = report.samples[2], report.samples[-1]
    assert last.open_files <= first.open_files
    assert last.threads <= first.threads + 2  # Those of the sampler start when they are needed.
