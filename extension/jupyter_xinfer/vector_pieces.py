"""One request for vectors as several to the replicas: each is small, and they go to whichever replica has least to do.

A few are under way at a time. A request with thousands of inputs thus keeps all replicas busy, and never has more in
an engine's queue than that; when a replica is lost, only its pieces are computed again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from msgspec.structs import replace

from xinfer_runtime.messages import Delta, EmbedRequest, Usage
from xinfer_runtime.routing.merge import whole

PIECE_INPUTS = 32
PIECE_SIZE = 65_536
"""Characters, or token ids, of the inputs of a piece; one that is longer is a piece of its own."""

PIECES_AT_ONCE = 4
"""At each replica: enough that it need not wait for the next one."""


def pieces(request: EmbedRequest) -> list[EmbedRequest]:
    """The same inputs in the same order, a few in each; `first` numbers them."""
    bounds = [0]
    size = 0
    for index, each in enumerate(request.inputs):
        if index > bounds[-1] and (index - bounds[-1] == PIECE_INPUTS or size + len(each) > PIECE_SIZE):
            bounds.append(index)
            size = 0
        size += len(each)
    ends = [*bounds[1:], len(request.inputs)]
    if len(bounds) == 1:
        return [request]
    return [
        replace(request, id=f"{request.id}-{number}", inputs=request.inputs[start:end], first=start)
        for number, (start, end) in enumerate(zip(bounds, ends, strict=True))
    ]


async def in_pieces(
    send: Callable[[EmbedRequest], AsyncGenerator[Delta]], request: EmbedRequest, replicas: int
) -> AsyncGenerator[Delta]:
    """The answers to the pieces of `request` in their order; each says the tokens used so far, the last one ends.

    Raises what the first piece that fails raises; the others are aborted then.
    """
    waiting = deque(pieces(request))
    running: deque[asyncio.Task[Delta]] = deque()
    tokens = 0
    try:
        while waiting or running:
            while waiting and len(running) < PIECES_AT_ONCE * max(replicas, 1):
                piece = waiting.popleft()
                running.append(asyncio.create_task(whole(send(piece), piece.id)))
            delta = await running[0]
            running.popleft()
            tokens += delta.usage.prompt_tokens if delta.usage is not None else 0
            last = not waiting and not running
            yield replace(
                delta, id=request.id, usage=Usage(tokens, 0), finish_reason=delta.finish_reason if last else None
            )
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
