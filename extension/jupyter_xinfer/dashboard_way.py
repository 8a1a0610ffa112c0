"""The way to the Dask dashboard where it listens on the loopback address of another machine: through the scheduler.

Each connection to it becomes a tunnel. They are made to a socket in a folder that only this user can enter, because the
dashboard asks nobody who they are.
"""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado.netutil import Resolver

from xinfer_runtime.routing.link_tasks import run_until_one_ends

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CHUNK = 65536

OpenTunnel = Callable[[str], Awaitable[socket.socket]]


def needs_tunnel(dashboard: str, scheduler: str) -> bool:
    """Whether the dashboard at this URL listens on a loopback address that is not this machine's."""
    return urlsplit(dashboard).hostname in LOOPBACK and urlsplit(scheduler).hostname not in LOOPBACK


class DashboardWay:
    """Leads to the dashboard at `address`, `host:port` there, by the tunnels that `open_tunnel` opens."""

    def __init__(self, address: str, open_tunnel: OpenTunnel) -> None:
        self.address = address
        self._open_tunnel = open_tunnel
        self._folder = Path(tempfile.mkdtemp(prefix="xinfer-dask-"))
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def resolver(self) -> Resolver:
        """What has tornado's clients take this way, whatever name they ask for."""
        path = str(self._folder / "socket")
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._lead, path)
        resolver: Resolver = _Resolver(path=path)
        return resolver

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(sock=await self._open_tunnel(self.address))
            try:
                await run_until_one_ends(_copy(reader, far_writer), _copy(far_reader, writer))
            finally:
                far_writer.transport.abort()
        except OSError:
            pass  # The browser is told by the end of its connection.
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


class _Resolver(Resolver):
    def initialize(self, path: str) -> None:
        self._path = path

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        return [(socket.AF_UNIX, self._path)]
