import asyncio

import pytest

from xinfer_runtime.errors import Overloaded
from xinfer_runtime.routing.waiting_line import WaitingLine


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.05


async def test_only_the_first_is_woken_and_then_the_next() -> None:
    line = WaitingLine("m")
    first, second = line.enter(front=False), line.enter(front=False)
    waits = [asyncio.ensure_future(place.wait(soon() + 5)) for place in (first, second)]
    await asyncio.sleep(0)
    line.wake_first()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [wait.done() for wait in waits] == [True, False]
    assert (line.first(first), line.first(second), line.first(None)) == (True, False, False)
    line.leave(first)
    await waits[1]
    assert line.first(second)


async def test_a_full_line_refuses_all_but_who_lost_a_replica() -> None:
    line = WaitingLine("m", limit=1)
    waiting = line.enter(front=False)
    with pytest.raises(Overloaded, match="1 requests for 'm' are waiting"):
        line.enter(front=False)
    lost = line.enter(front=True)
    assert line.first(lost)
    line.leave(lost)
    assert line.first(waiting)


async def test_a_wait_ends_at_its_deadline() -> None:
    with pytest.raises(TimeoutError):
        await WaitingLine("m").enter(front=False).wait(soon())
