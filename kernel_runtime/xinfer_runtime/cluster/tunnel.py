"""The way to a replica through the scheduler, for gateways that cannot reach it directly.

What goes through is the link as it is: the TLS between gateway and replica ends at these two, and the scheduler, which
opens a plain connection for it, sees bytes. A tunnel leads to replicas of the controller's table, or to the scheduler's
own dashboard, and nowhere else.
"""

import asyncio
import logging
import socket
from typing import Any, Final

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.dask_comm import Comm, open_comm, written
from xinfer_runtime.routing.link_tasks import run_until_one_ends

logger = logging.getLogger("xinfer.tunnel")

OPERATION: Final = "xinfer_tunnel"
_CONNECT_SECONDS: Final = 4.0
_ANSWER_SECONDS: Final = 6.0
_CHUNK: Final = 65536
_OPEN = b""
"""The scheduler's answer when it is through; anything else is the reason why not."""


async def relay(comm: Comm, address: str) -> None:
    """The scheduler's end: connect to the replica at `address` (`host:port`) and relay until either side is gone."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        await refuse(comm, f"the scheduler cannot reach {address}: {error!r}")
        return
    await comm.write(_OPEN)
    await _pump(comm, reader, writer)


async def refuse(comm: Comm, why: str) -> None:
    await comm.write(why.encode())
    await written(comm)


async def open_tunnel(scheduler: str, credentials: TlsCredentials, address: str) -> socket.socket:
    """The gateway's end: a socket that leads to the replica at `address`. Closing it closes the tunnel.

    Raises OSError where there is no way.
    """
    comm = await open_comm(scheduler, credentials, _CONNECT_SECONDS)
    try:
        await comm.write({"op": OPERATION, "address": address, "reply": False})
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer = await comm.read()
        if answer != _OPEN:
            reason = answer.decode() if isinstance(answer, bytes) else f"{answer!r:.100}"
            raise ConnectionRefusedError(f"no tunnel to {address}: {reason}")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=theirs)
    except BaseException:
        comm.abort()
        raise
    task = asyncio.create_task(_pump(comm, reader, writer), name=f"xinfer-tunnel-{address}")
    _tunnels.add(task)
    task.add_done_callback(_tunnels.discard)
    return ours


_tunnels: set[asyncio.Task[None]] = set()


async def _pump(comm: Comm, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relay both ways, neither faster than the other side takes it."""

    async def outwards() -> None:
        while data := await reader.read(_CHUNK):
            await comm.write(data)
            await written(comm)

    async def inwards() -> None:
        while True:
            writer.write(_bytes(await comm.read()))
            await writer.drain()

    try:
        await run_until_one_ends(outwards(), inwards())
    except OSError as error:
        logger.debug("a tunnel ended: %r", error)
    finally:
        comm.abort()
        writer.transport.abort()


def _bytes(message: Any) -> bytes:
    if not isinstance(message, bytes):
        raise ConnectionAbortedError("what came through a tunnel is not bytes")
    return message
