"""Several streams as one, in the order in which they have something."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from xinfer_runtime.messages import Delta


async def interleave(streams: Sequence[AsyncGenerator[Delta]]) -> AsyncGenerator[tuple[int, Delta]]:
    """Pairs of a stream's number and its next delta, until all have ended. Ending early ends them all.

    One delta of each stream at most is taken ahead of the reader, so its pace reaches the engines.
    """
    if len(streams) == 1:
        async with contextlib.aclosing(streams[0]) as only:
            async for delta in only:
                yield 0, delta
        return
    waiting = {_next(stream): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                following = task.result()
                if following is not None:
                    waiting[_next(streams[index])] = index
                    yield index, following
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


def _next(stream: AsyncGenerator[Delta]) -> "asyncio.Task[Delta | None]":
    async def step() -> Delta | None:
        return await anext(stream, None)

    return asyncio.create_task(step())
