"""A replica process as its node agent holds it: started, listened to, and ended."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from xinfer_runtime.cluster.bounded_log import BoundedLog
from xinfer_runtime.cluster.child_process import child_environment
from xinfer_runtime.cluster.replica_protocol import (
    LINE_LIMIT,
    CoresCommand,
    DrainCommand,
    ReplicaConfig,
    ReplicaLine,
    decode_line,
    encode_line,
)

logger = logging.getLogger("xinfer.agent")

_TAIL = 8192
_CHUNK = 65536


class ReplicaProcess:
    """`on_line` gets what the replica says, `on_exit` its return code (None: never started) and the end of its stderr.
    `environment` is added to what a child may see of this process's own.

    Both are called on the event loop.
    """

    def __init__(
        self,
        replica_id: str,
        log_file: Path,
        on_line: Callable[[ReplicaLine], None],
        on_exit: Callable[[int | None, str], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._id = replica_id
        self._log = BoundedLog(log_file)
        self._on_line = on_line
        self._on_exit = on_exit
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._tail = b""
        self._unwanted = False

    async def run(self, command: Sequence[str], config: ReplicaConfig) -> None:
        """Start the process, unless it was drained or killed before, and return when it is gone."""
        if self.unwanted():
            self._on_exit(None, "")
            return
        try:
            # From the loop's thread, and as the leader of a session: its whole group can be killed, and a Ctrl-C in the
            # terminal is not its business.
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=child_environment(os.environ, **self._environment),
                start_new_session=True,
                limit=LINE_LIMIT,
            )
        except OSError as error:
            self._on_exit(None, f"{command[0]}: {error}")
            return
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            self._write(encode_line(config))
            if self.unwanted():
                self._kill_group()
            # What the replica leaves behind may hold its pipes open: they are read until it ends, and a moment longer.
            readers = asyncio.gather(self._read_lines(process.stdout), self._read_log(process.stderr))
            await process.wait()
            self._kill_group()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(readers, 1.0)
        finally:
            self._kill_group()
            process.stdin.close()
            if process.returncode is None:
                await process.wait()
        self._on_exit(process.returncode, self._tail.decode(errors="replace"))

    def drain(self, seconds: float) -> None:
        """Have it finish its streams within `seconds` and end."""
        self._unwanted = True
        self._write(encode_line(DrainCommand(seconds)))

    def use_cores(self, cores: int) -> None:
        """Have it use so many cores from now on."""
        self._write(encode_line(CoresCommand(cores)))

    def kill(self) -> None:
        """End it and everything that it started."""
        self._unwanted = True
        if self._process is not None and self._process.returncode is None:
            self._kill_group()

    def unwanted(self) -> bool:
        """Whether it was drained or killed."""
        return self._unwanted

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _write(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line)

    async def _read_lines(self, stdout: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stdout.readline()
            except ValueError:
                logger.error("replica %s: a line over %d bytes", self._id, LINE_LIMIT)
                self.kill()
                return
            if not line:
                return
            try:
                self._on_line(decode_line(line))
            except msgspec.MsgspecError as error:
                logger.error("replica %s said what nobody understands: %s", self._id, error)

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(_CHUNK):
            self._tail = (self._tail + data)[-_TAIL:]
            try:
                await asyncio.to_thread(self._log.append, data)
            except OSError as error:
                logger.warning("replica %s: its log is not written: %s", self._id, error)
