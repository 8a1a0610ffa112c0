"""Several streams as one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from jupyter_xinfer.handlers.interleave import interleave
from xinfer_runtime.messages import Delta


class Source:
    """A stream that yields when told to, and remembers that it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Delta | None] = asyncio.Queue()
        self.closed = False

    async def stream(self) -> AsyncGenerator[Delta]:
        try:
            while (delta := await self.queue.get()) is not None:
                yield delta
        finally:
            self.closed = True


async def test_deltas_come_as_they_are_ready_with_their_streams_number() -> None:
    sources = [Source(), Source()]
    for index, text in ((1, "a"), (0, "b"), (1, "c")):
        await sources[index].queue.put(Delta("id", text))
    for source in sources:
        await source.queue.put(None)

    found = [(index, delta.text) async for index, delta in interleave([source.stream() for source in sources])]

    assert sorted(found) == [(0, "b"), (1, "a"), (1, "c")]
    assert found.index((1, "a")) < found.index((1, "c"))


@pytest.mark.parametrize("count", [1, 3])
async def test_ending_early_closes_every_stream(count: int) -> None:
    sources = [Source() for _ in range(count)]
    for source in sources:
        await source.queue.put(Delta("id", "a"))

    async with aclosing(interleave([source.stream() for source in sources])) as merged:
        await anext(merged)

    assert all(source.closed for source in sources)
