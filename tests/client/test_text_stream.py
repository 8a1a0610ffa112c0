"""Streams over real sockets: leaving one early must reach the server."""

import asyncio
import threading

import pytest
from tests.client.slow_server import SlowServer

from xinfer_runtime.client import AsyncClient, Client


def test_leaving_a_with_block_ends_the_generation(slow: SlowServer) -> None:
    with Client(slow.url, "k") as client, client.get_model("demo").chat("Hi", stream=True) as stream:
        assert next(stream) == "word "
        stream.close()
        assert slow.left.wait(1)


def test_dropping_a_stream_ends_the_generation(slow: SlowServer) -> None:
    with Client(slow.url, "k") as client:
        for _ in client.get_model("demo").chat("Hi", stream=True):
            break
        assert slow.left.wait(1)


def test_closing_from_another_thread_ends_the_loop_quietly(slow: SlowServer) -> None:
    with Client(slow.url, "k") as client, client.get_model("demo").chat("Hi", stream=True) as stream:
        timer = threading.Timer(0.1, stream.close)
        timer.start()
        words = list(stream)
        timer.join()
    assert 0 < len(words) < 100
    assert slow.left.wait(1)


async def test_cancelling_a_task_ends_the_generation(slow: SlowServer) -> None:
    async def read() -> None:
        async with AsyncClient(slow.url, "k") as client:
            model = await client.get_model("demo")
            async with await model.chat("Hi", stream=True) as stream:
                async for _ in stream:
                    started.set()

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(slow.left.wait, 1)
