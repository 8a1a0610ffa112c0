"""The replica process: one engine with one model, and the listener for the gateways' links.

Started by a node agent, which holds its stdin and stdout (`replica_protocol`). It imports no Dask: it starts fast,
stays small, and can run from another environment than the node's.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable

import msgspec

from xinfer_runtime.cluster.child_process import die_with_parent, take_standard_streams
from xinfer_runtime.cluster.last_words import last_words
from xinfer_runtime.cluster.replica_protocol import (
    BEAT_SECONDS,
    LINE_LIMIT,
    BeatLine,
    CoresCommand,
    DrainCommand,
    FailedLine,
    ListeningLine,
    ProgressLine,
    ReadyLine,
    ReplicaConfig,
    ReplicaLine,
    decode_command,
    decode_config,
    encode_line,
)
from xinfer_runtime.cluster.replica_server import ReplicaServer
from xinfer_runtime.engines.base import Engine
from xinfer_runtime.engines.registry import create_engine
from xinfer_runtime.errors import EngineError, XinferError
from xinfer_runtime.logs import log_to_stderr

logger = logging.getLogger("xinfer.replica")

_CLOSE_SECONDS = 5.0

_SWITCH_INTERVAL = 0.0005
"""Seconds, a tenth of Python's own: while this process writes answers, an engine's thread must not wait as long as a
pass takes for the interpreter to be given back to it."""

CreateEngine = Callable[[str, str], Engine]
"""Takes the names of an engine and of a type of models."""


def main(create: CreateEngine = create_engine) -> None:
    """Run a replica until its agent ends it. Exit code 1 where the model was not loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = take_standard_streams()
    log_to_stderr()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    asyncio.run(_run(requests, answers, create))


async def _run(requests: int, answers: int, create: CreateEngine) -> None:
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(requests, "rb", buffering=0))
    line = await reader.readline()
    if not line:
        return
    config = decode_config(line)
    die_with_parent(config.parent)
    code = await Replica(config, answers, create).run(reader)
    logging.shutdown()
    # Threads of an engine, one that still loads for instance, may run on; asyncio would wait for them.
    os._exit(code)


class Replica:
    """The life of one replica. `answers` is the file descriptor that the agent reads."""

    def __init__(self, config: ReplicaConfig, answers: int, create: CreateEngine) -> None:
        self._config = config
        self._answers = answers
        self._create = create
        self._server = ReplicaServer(
            config.replica_id,
            config.token,
            config.credentials.server_context(),
            config.host,
            config.credentials.client_context(),
        )
        self._engine: Engine | None = None
        self._cores = config.cores
        self._drain_seconds = 0.0
        self._stop = asyncio.Event()

    async def run(self, reader: asyncio.StreamReader) -> int:
        """Listen, load, serve. Returns the exit code."""
        helpers = [asyncio.create_task(self._obey(reader)), asyncio.create_task(self._beat())]
        self._say(ListeningLine(os.getpid(), await self._server.start()))
        try:
            load = asyncio.create_task(self._load())
            stop = asyncio.create_task(self._stop.wait())
            await asyncio.wait((load, stop), return_when=asyncio.FIRST_COMPLETED)
            if not load.done():
                # An engine cannot be interrupted while it loads; the process ends under it.
                return 0
            engine = load.result()
            await stop
            await self._server.drain(self._drain_seconds)
            await self._server.close()
            await asyncio.wait_for(engine.close(), _CLOSE_SECONDS)
        except XinferError as error:
            logger.error("%s was not loaded: %s", self._config.spec.uid, error)
            self._say(FailedLine(error.info))
            return 1
        except TimeoutError:
            logger.warning("the engine did not close within %.0f s", _CLOSE_SECONDS)
        finally:
            for helper in helpers:
                helper.cancel()
        return 0

    async def _load(self) -> Engine:
        """Raises XinferError alone."""
        spec = self._config.spec
        try:
            engine = self._engine = self._create(spec.engine, spec.type)
            if self._cores is not None:
                self._use_cores(self._cores)
            info = await engine.load(spec, self._server.emit, self._progress)
        except XinferError:
            raise
        except Exception as error:
            logger.exception("loading %s", spec.uid)
            raise EngineError(f"{spec.engine} failed to load {spec.uid!r}: {last_words(repr(error))}") from error
        # What was made until now stays: a collector that looks at it again and again stops the tokens for milliseconds.
        gc.collect()
        gc.freeze()
        self._server.engine = engine
        self._say(ReadyLine(info))
        return engine

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            try:
                command = decode_command(line)
            except msgspec.MsgspecError as error:
                logger.error("the agent said what nobody understands: %s", error)
                continue
            match command:
                case CoresCommand(cores):
                    self._use_cores(cores)
                case DrainCommand(seconds):
                    self._drain_seconds = seconds
                    self._stop.set()
        self._die()

    def _use_cores(self, cores: int) -> None:
        self._cores = cores
        logger.info("computes on %d cores", cores)
        if self._engine is not None:
            self._engine.use_cores(cores)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._say(BeatLine())

    def _progress(self, progress: float, stage: str) -> None:
        self._say(ProgressLine(progress, stage))

    def _say(self, line: ReplicaLine) -> None:
        try:
            os.write(self._answers, encode_line(line))
        except OSError:
            self._die()

    def _die(self) -> None:
        """The agent is gone: end now, along with everything that the engine started."""
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)


if __name__ == "__main__":
    main()
