"""Server-sent events on a connection that takes everything at once."""

import asyncio
from typing import Any, cast

import pytest
from tornado.web import RequestHandler

from jupyter_xinfer.handlers import event_stream
from jupyter_xinfer.handlers.event_stream import EventStream


class Connection:
    """What an EventStream does with its handler."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.twice = asyncio.Event()

    def set_header(self, name: str, value: str) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if len(self.written) == 2:
            self.twice.set()

    def flush(self) -> "asyncio.Future[None]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.1)
    return Connection()


async def test_events_go_out_in_one_write(connection: Any) -> None:
    async with EventStream(cast(RequestHandler, connection)) as events:
        await events.send(b"1", ("named", b"2"))
    assert connection.written == [b"data: 1\n\nevent: named\ndata: 2\n\n"]


async def test_a_silent_stream_is_kept_alive_again_and_again(connection: Any) -> None:
    async with EventStream(cast(RequestHandler, connection)):
        await asyncio.wait_for(connection.twice.wait(), 30)
    assert set(connection.written) == {b": keep-alive\n\n"}


async def test_a_stream_with_events_needs_nothing_else(connection: Any) -> None:
    async with EventStream(cast(RequestHandler, connection)) as events:
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.4
        while loop.time() < until:
            await events.send(b"1")
            await asyncio.sleep(0)
    assert set(connection.written) == {b"data: 1\n\n"}


async def test_nothing_is_written_once_the_stream_has_ended(connection: Any) -> None:
    async with EventStream(cast(RequestHandler, connection)):
        pass
    await asyncio.sleep(0.3)
    assert connection.written == []
