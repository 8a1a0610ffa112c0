import asyncio

import pytest

from xinfer_runtime.errors import Overloaded
from xinfer_runtime.routing.waiting_line import WaitingLine


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.05


async def test_only_the_first_is_woken_and_then_the_next() -> None:
    line = WaitingLine("m")
    first, second = line.enter(), line.enter()
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
    waiting = line.enter()
    with pytest.raises(Overloaded, match="1 requests for 'm' are waiting"):
        line.enter()
    lost = line.enter(ahead=True)
    assert line.first(lost)
    line.leave(lost)
    assert line.first(waiting)


async def test_a_wait_ends_at_its_deadline() -> None:
    with pytest.raises(TimeoutError):
        await WaitingLine("m").enter().wait(soon())


async def test_retry_after_is_what_the_line_takes_at_its_pace() -> None:
    now = 0.0
    line = WaitingLine("m", limit=20, clock=lambda: now)
    assert line.retry_after == 1
    places = [line.enter() for _ in range(20)]
    for place in places[:10]:
        now += 0.5
        line.start(place)
    assert line.retry_after == 5
    for _ in range(10):
        line.enter()
    with pytest.raises(Overloaded) as refusal:
        line.enter()
    assert refusal.value.retry_after == 10
    now += 1000
    line.start(places[10])
    assert line.retry_after == 60
