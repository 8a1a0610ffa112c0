"""A Dask cluster on this machine, in a process of its own: the Jupyter server never runs a scheduler."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final

import msgspec

from xinfer_runtime.cluster.child_process import child_command, child_environment
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.last_words import last_words
from xinfer_runtime.cluster.local_protocol import (
    LOG_NAME,
    ClusterAddress,
    LocalClusterConfig,
    decode_address,
    encode_line,
)
from xinfer_runtime.errors import ClusterUnavailable

__all__ = ["ClusterAddress", "LocalClusterProcess"]

START_SECONDS: Final = 90.0
CLOSE_SECONDS: Final = 15.0
_TAIL = 2000


class LocalClusterProcess:
    """`home` keeps the desired table and the logs. `exited` is set when the process is gone, asked or not.

    The cluster ends with this process, however that ends.
    """

    def __init__(self, home: Path, credentials: TlsCredentials) -> None:
        self.exited = asyncio.Event()
        self._home = home
        self._credentials = credentials
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> ClusterAddress:
        """Start the cluster. Raises ClusterUnavailable, which names the log, when that fails."""
        process = self._process = await asyncio.create_subprocess_exec(
            *child_command("xinfer_runtime.cluster.local_main"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(os.environ, XINFER_HOME=str(self._home)),
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._watcher = asyncio.create_task(self._watch(process))
        config = LocalClusterConfig(parent=os.getpid(), home=str(self._home), credentials=self._credentials)
        line = b""
        try:
            async with asyncio.timeout(START_SECONDS):
                process.stdin.write(encode_line(config))
                line = await process.stdout.readline()
            return decode_address(line)
        except (TimeoutError, OSError, msgspec.MsgspecError) as error:
            await self.close()
            log = self._home / "logs" / LOG_NAME
            tail = await asyncio.to_thread(_end_of, log)
            why = "it ended" if isinstance(error, msgspec.MsgspecError) else repr(error)
            said = f"; its log ends with: {words}" if (words := last_words(tail)) else ""
            raise ClusterUnavailable(f"the local cluster did not start: {why}{said}", place=str(log)) from error
        except asyncio.CancelledError:
            self._kill()
            raise

    async def close(self) -> None:
        """End the cluster in order; by force after 15 s."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(self.exited.wait(), CLOSE_SECONDS)
        except TimeoutError:
            self._kill()
            await self.exited.wait()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        # Whatever it left behind is in its group, except replicas: these end with their agent.
        self._kill()
        if process.stdin is not None:
            process.stdin.close()
        self.exited.set()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _end_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-_TAIL:].strip()
    except OSError as error:
        return f"({error.strerror})"
