"""Between two replicas: what was computed of a sequence that left the one is fetched by the other."""

import asyncio
import logging
import ssl
import time
from typing import Final

from xinfer_runtime.engines.sequence_state import SequenceState, StateReader
from xinfer_runtime.routing.frames import (
    PROTOCOL_VERSION,
    Fetch,
    FrameError,
    Hello,
    Piece,
    StateAt,
    decode_from_replica,
    encode_frames,
    encode_message,
    read_frame,
)

logger = logging.getLogger("xinfer.replica")

FETCH_SECONDS: Final = 5.0
"""What a state is worth waiting for. After that its tokens are computed again."""
CONNECT_SECONDS: Final = 2.0
"""Until the other replica answers. Where gateways need a tunnel, replicas may not reach each other at all."""


async def fetch_state(where: StateAt, context: ssl.SSLContext) -> SequenceState | None:
    """The state that is kept there; None, with a word in the log, where it cannot be had."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            state = await _fetch(where, context)
    except (OSError, FrameError, ValueError) as error:  # A TimeoutError is an OSError.
        logger.warning("what %s has computed of a request is computed again: %r", where.replica_id, error)
        return None
    logger.info("fetched a sequence from %s in %.0f ms", where.replica_id, 1000 * (time.monotonic() - started))
    return state


async def give_state(state: SequenceState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send it to whoever fetches it, until he has it. Raises OSError."""
    for piece in state.pieces():
        writer.write(encode_frames([encode_message(Piece(piece))]))
        await writer.drain()
    async with asyncio.timeout(FETCH_SECONDS):
        await reader.read(1)  # The connection is closed at the other end, where it is known that all came.


async def _fetch(where: StateAt, context: ssl.SSLContext) -> SequenceState:
    host, _, port = where.address.rpartition(":")
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(
            host.strip("[]"), int(port), ssl=context, server_hostname="", ssl_shutdown_timeout=1.0
        )
    try:
        hello = (Hello(PROTOCOL_VERSION, where.token), Fetch(where.ticket))
        writer.write(encode_frames([encode_message(each) for each in hello]))
        pieces = StateReader()
        while not pieces.complete:
            for message in decode_from_replica(await read_frame(reader)):
                if not isinstance(message, Piece):
                    raise FrameError("something else than a state came")
                pieces.take(message.data)
        return pieces.state()
    finally:
        writer.transport.abort()
