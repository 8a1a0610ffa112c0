"""Aborting a request from another connection."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from jupyter_xinfer.auth.principal import Principal, set_current_principal
from jupyter_xinfer.request_ids import set_current_request_id
from jupyter_xinfer.running_requests import RunningRequests
from xinfer_runtime.errors import Cancelled
from xinfer_runtime.messages import Delta


class Endless:
    """An answer of one delta that then waits for ever."""

    def __init__(self) -> None:
        self.closed = False

    async def deltas(self) -> AsyncGenerator[Delta]:
        try:
            yield Delta("r", "a")
            await asyncio.Event().wait()
        finally:
            self.closed = True


async def test_an_aborted_request_ends_with_cancelled_and_frees_its_answer() -> None:
    requests, answer = RunningRequests(), Endless()
    started = asyncio.Event()

    async def consume() -> None:
        async for _ in requests.abortable("m", "r", answer.deltas()):
            started.set()

    task = asyncio.create_task(consume())
    await started.wait()
    assert requests.abort("m", "r")
    with pytest.raises(Cancelled):
        await task
    assert answer.closed
    assert not task.cancelling()
    assert len(requests) == 0


async def test_a_request_is_aborted_while_its_client_reads() -> None:
    requests, answer = RunningRequests(), Endless()
    deltas = requests.abortable("m", "r-0", answer.deltas())
    await anext(deltas)

    assert requests.abort("m", "r")
    with pytest.raises(Cancelled):
        await anext(deltas)
    assert answer.closed


async def test_a_request_is_known_by_the_id_of_its_header_too() -> None:
    requests = RunningRequests()
    set_current_request_id("req-1")
    deltas = requests.abortable("m", "r-0", Endless().deltas())
    await anext(deltas)

    assert not requests.abort("m", "req-2")
    assert requests.abort("m", "req-1")
    with pytest.raises(Cancelled):
        await anext(deltas)


async def test_only_the_named_request_of_the_named_model_is_aborted() -> None:
    requests = RunningRequests()
    deltas = requests.abortable("m", "r-0", Endless().deltas())
    await anext(deltas)

    assert not requests.abort("other", "r-0")
    assert not requests.abort("m", "r-1")
    assert not requests.abort("m", "")
    await deltas.aclose()
    assert len(requests) == 0


async def test_only_its_owner_or_who_may_do_all_aborts_a_request() -> None:
    requests = RunningRequests()
    set_current_principal(Principal(kind="api_key", name="ann"))
    deltas = requests.abortable("m", "r-0", Endless().deltas())
    await anext(deltas)

    assert not requests.abort("m", "r", "api_key:bob")
    assert not requests.abort("m", "r", "user:ann")
    assert requests.abort("m", "r", "api_key:ann")
    with pytest.raises(Cancelled):
        await anext(deltas)


async def test_a_client_that_leaves_is_still_a_cancellation() -> None:
    requests, answer = RunningRequests(), Endless()
    started = asyncio.Event()

    async def consume() -> None:
        async for _ in requests.abortable("m", "r", answer.deltas()):
            started.set()

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answer.closed
