"""The replica processes of a node, and what starts, watches and ends them: the I/O of `agent_state`.

It lives in the process that owns the replicas. Below `jupyter xinfer worker` that is the node's own process, so that
the replicas outlast Dask's worker, which ends with every scheduler; in other clusters it is the Dask worker itself.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from xinfer_runtime.catalog.hub_download import download
from xinfer_runtime.catalog.hub_files import HubFiles
from xinfer_runtime.catalog.hub_reference import is_hub_reference
from xinfer_runtime.cluster import agent_events as events
from xinfer_runtime.cluster.agent_events import DOWNLOADING, Drain, Event, Kill, Start
from xinfer_runtime.cluster.agent_state import AgentState
from xinfer_runtime.cluster.bounded_log import prune
from xinfer_runtime.cluster.child_process import child_command
from xinfer_runtime.cluster.core_shares import core_shares
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.gpu_visibility import visible_devices
from xinfer_runtime.cluster.inspection import inspect_file
from xinfer_runtime.cluster.inventory import NodeSurvey, private_memory
from xinfer_runtime.cluster.protocol import Inspection, NodeReport, ReplicaReport, Sync, decode, encode
from xinfer_runtime.cluster.replica_process import ReplicaProcess
from xinfer_runtime.cluster.replica_protocol import (
    BeatLine,
    FailedLine,
    ListeningLine,
    ProgressLine,
    ReadyLine,
    ReplicaConfig,
    ReplicaLine,
)
from xinfer_runtime.control_group import usable_cores
from xinfer_runtime.errors import EngineError, XinferError
from xinfer_runtime.models import ModelSpec

logger = logging.getLogger("xinfer.agent")

_PROGRESS_SECONDS = 0.5
"""How often a download is reported."""

_LOGS_KEPT = 200
"""Files, of at most a MiB each; a replica that writes has up to two."""


class ReplicaHost:
    """`survey` measures the node, `address` is where replicas listen, `logs` the folder of their logs.

    `outlasts` says whether this process goes on when the node's Dask worker ends. `command` starts a replica process,
    by default with this Python.
    """

    def __init__(
        self,
        survey: NodeSurvey,
        address: str,
        logs: Path,
        credentials: TlsCredentials,
        *,
        outlasts: bool = False,
        command: tuple[str, ...] = (),
    ) -> None:
        self.boot = secrets.token_hex(8)
        self.seq = 0
        self._survey = survey
        self._address = address
        self._logs = logs
        self._credentials = credentials
        self._outlasts = outlasts
        self._command = command
        self._state = AgentState(survey.label, new_token=lambda: secrets.token_urlsafe(32))
        self._processes: dict[int, ReplicaProcess] = {}
        self._wants: dict[int, int] = {}
        self._shares: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()

    async def close(self, seconds: float) -> None:
        """End the replicas; streams in flight get `seconds` to finish. Returns when nothing is left."""
        self._handle(events.ShutDown(seconds))
        while not self._state.idle:
            self._all_gone.clear()
            await self._all_gone.wait()
        if self._timer is not None:
            self._timer.cancel()

    # ---- what the controller asks: bytes in, bytes out

    async def sync(self, sync: bytes) -> bytes:
        """Take the wants; returns an encoded NodeReport."""
        self._handle(events.Synced(decode(sync, Sync)))
        return self.report()

    async def inspect(self, spec: bytes) -> bytes:
        """Look at a model's file; returns an encoded Inspection."""
        report = decode(self.report(), NodeReport)
        try:
            found = await inspect_file(decode(spec, ModelSpec), report.inventory)
        except XinferError as error:
            return encode(Inspection(report=report, error=error.info))
        return encode(Inspection(report=report, spec=found))

    def report(self) -> bytes:
        """An encoded NodeReport of this moment."""
        self.seq += 1
        return encode(
            NodeReport(
                boot=self.boot,
                seq=self.seq,
                epoch=self._state.epoch,
                generation=self._state.generation,
                inventory=self._survey.measure(),
                replicas=tuple(
                    ReplicaReport(
                        incarnation=want.incarnation,
                        replica=replica,
                        memory_private=private_memory(replica.pid) if replica.pid else 0,
                        launched=want.spec.created,
                    )
                    for want, replica in self._state.replicas
                ),
                events=self._state.events,
                outlasts=self._outlasts,
            )
        )

    async def next_report(self, version: int, seconds: float) -> tuple[int, bytes]:
        """A report when the state differs from `version`, or after `seconds`; with the version that it shows."""
        deadline = time.monotonic() + seconds
        while self._state.version == version and (left := deadline - time.monotonic()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                break
        return self._state.version, self.report()

    # ---- the state machine's outside

    def _handle(self, event: Event) -> None:
        version = self._state.version
        for instruction in self._state.handle(event, time.monotonic(), time.time()):
            match instruction:
                case Start():
                    self._spawn(self._run(instruction))
                case Drain(process, seconds):
                    if process in self._processes:
                        self._processes[process].drain(seconds)
                case Kill(process):
                    if process in self._processes:
                        self._processes[process].kill()
        if self._state.version != version:
            self._changed.set()
        if self._state.idle:
            self._all_gone.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakeup = self._state.next_wakeup()
        if wakeup is not None:
            delay = max(0.0, wakeup - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._handle, events.Woke())

    async def _run(self, start: Start) -> None:
        """One life of a replica process, from its file to its end."""
        number, wanted = start.process, start.want
        self._wants[number] = usable_cores()
        process = self._processes[number] = ReplicaProcess(
            wanted.id,
            self._logs / f"replica-{_file_name(wanted.id)}.log",
            on_line=lambda line: self._heard(number, line),
            on_exit=lambda returncode, tail: self._handle(events.Exited(number, returncode, tail)),
            environment=visible_devices(wanted.devices, self._survey.gpus()),
        )
        self._share_cores()
        await asyncio.to_thread(prune, self._logs, _LOGS_KEPT)
        try:
            if is_hub_reference(wanted.spec.path):
                await self._download(number, process, wanted.spec.path)
            config = ReplicaConfig(
                replica_id=wanted.id,
                parent=os.getpid(),
                host=self._address,
                token=start.token,
                credentials=self._credentials,
                spec=await inspect_file(wanted.spec),
                cores=self._shares[number],
            )
            await process.run(self._command or child_command("xinfer_runtime.cluster.replica_main"), config)
        except XinferError as error:
            self._handle(events.LoadFailed(number, error.info))
            self._handle(events.Exited(number, None))
        finally:
            del self._processes[number], self._wants[number]
            self._share_cores()

    async def _download(self, number: int, process: ReplicaProcess, path: str) -> None:
        """Have the file of a hub on this node. Raises XinferError."""
        here = (0, 0)

        def report(done: int, total: int) -> None:
            nonlocal here
            here = done, total

        files = HubFiles()
        thread = asyncio.create_task(
            asyncio.to_thread(download, files.reference(path), files, report, process.unwanted)
        )
        while not thread.done():
            # Also where nothing comes: a replica that is silent for long is taken for dead.
            self._handle(events.Progressed(number, here[0] / max(here[1], 1), DOWNLOADING, *here))
            await asyncio.wait({thread}, timeout=_PROGRESS_SECONDS)
        try:
            await thread
        except XinferError as error:
            logger.warning("%s was not downloaded: %s", path, error)
            raise
        except Exception as error:
            logger.exception("downloading %s", path)
            raise EngineError(f"{path} could not be downloaded: {type(error).__name__}") from error

    def _share_cores(self) -> None:
        """Divide the cores among the replicas that there are, and tell those whose share is another one now."""
        before, self._shares = self._shares, core_shares(usable_cores(), self._wants)
        for number, cores in self._shares.items():
            if before.get(number) not in (None, cores):
                self._processes[number].use_cores(cores)

    def _heard(self, process: int, line: ReplicaLine) -> None:
        event: Event
        match line:
            case ListeningLine(pid, address):
                event = events.Listening(process, pid, address)
            case ProgressLine(progress, stage):
                event = events.Progressed(process, progress, stage)
            case ReadyLine(info):
                event = events.Ready(process, info)
                self._wants[process] = info.threads or usable_cores()
                self._share_cores()
            case FailedLine(error):
                event = events.LoadFailed(process, error)
            case BeatLine():
                event = events.Beat(process)
        self._handle(event)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the node's replicas failed", exc_info=error)


def _file_name(replica_id: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in replica_id)
