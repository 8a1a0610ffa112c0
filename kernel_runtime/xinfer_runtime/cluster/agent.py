"""The node agent: a plugin of each Dask worker, which runs the replica processes of its node.

It does the I/O of `agent_state`.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from distributed.comm.addressing import get_address_host
from distributed.diagnostics.plugin import WorkerPlugin

from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.cluster import agent_events as events
from xinfer_runtime.cluster.agent_events import Drain, Event, Kill, Start
from xinfer_runtime.cluster.agent_state import AgentState
from xinfer_runtime.cluster.child_process import child_command
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.inventory import NodeSurvey, machine_memory, private_memory
from xinfer_runtime.cluster.placement import headroom
from xinfer_runtime.cluster.protocol import METRIC, Inspection, NodeReport, ReplicaReport, Sync, decode, encode
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
from xinfer_runtime.errors import EngineError, XinferError
from xinfer_runtime.messages import ModelSpec

if TYPE_CHECKING:
    from distributed.worker import Worker

logger = logging.getLogger("xinfer.agent")

PLUGIN_NAME: Final = "xinfer-agent"
_REPORT_EVERY = 10.0
_REPORT_GAP = 0.1
_RETRY = 0.5
_RPC_TIMEOUT = 5.0
_SHUTDOWN_DRAIN = 6.0
"""Below the 8 s that a Dask nanny leaves a worker which got SIGTERM."""


class NodeAgent(WorkerPlugin):
    """Register it with `idempotent=True`: a second registration of another kind would end all replicas of the cluster.

    `home` is the folder for logs on the node, by default `XINFER_HOME` or `~/.xinfer`. `replica_command` starts a
    replica process, by default with this worker's Python.
    """

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, home: str | None = None, replica_command: tuple[str, ...] = ()) -> None:
        self._home = home
        self._command = replica_command

    async def setup(self, worker: "Worker") -> None:
        self._worker = worker
        home = _home_folder(self._home)
        self._logs = home / "logs"
        self._credentials = _credentials_of(worker)
        address = get_address_host(worker.address)
        self._survey = await asyncio.to_thread(NodeSurvey, _label_of(worker), address, home)
        self._state = AgentState(self._survey.label, new_token=lambda: secrets.token_urlsafe(32))
        self._processes: dict[int, ReplicaProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._boot = secrets.token_hex(8)
        self._seq = 0
        self._dirty = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()
        worker.handlers["xinfer_sync"] = self._sync
        worker.handlers["xinfer_inspect"] = self._inspect
        # Heartbeats carry no more than a number: Dask's dashboard shows metrics to whoever asks.
        worker.metrics[METRIC] = lambda _worker: {"boot": self._boot, "seq": self._seq}
        self._reporter = asyncio.create_task(self._report_forever())

    async def teardown(self, worker: "Worker") -> None:
        """Streams in flight get a moment to finish; then nothing is left."""
        self._handle(events.ShutDown(_SHUTDOWN_DRAIN))
        while not self._state.idle:
            self._all_gone.clear()
            await self._all_gone.wait()
        self._reporter.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for name in ("xinfer_sync", "xinfer_inspect"):
            worker.handlers.pop(name, None)
        worker.metrics.pop(METRIC, None)

    # ---- RPC handlers

    async def _sync(self, sync: bytes) -> bytes:
        self._handle(events.Synced(decode(sync, Sync)))
        return encode(self._new_report())

    async def _inspect(self, spec: bytes) -> bytes:
        try:
            found = await _inspect_file(decode(spec, ModelSpec))
        except XinferError as error:
            return encode(Inspection(report=self._new_report(), error=error.info))
        return encode(Inspection(report=self._new_report(), spec=found))

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
            self._dirty.set()
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
        process = self._processes[number] = ReplicaProcess(
            wanted.id,
            self._logs / f"replica-{_file_name(wanted.id)}.log",
            on_line=lambda line: self._heard(number, line),
            on_exit=lambda returncode, tail: self._handle(events.Exited(number, returncode, tail)),
        )
        try:
            config = ReplicaConfig(
                replica_id=wanted.id,
                parent=os.getpid(),
                host=get_address_host(self._worker.address),
                token=start.token,
                credentials=self._credentials,
                spec=await _inspect_file(wanted.spec),
            )
            await process.run(self._command or child_command("xinfer_runtime.cluster.replica_main"), config)
        except XinferError as error:
            self._handle(events.LoadFailed(number, error.info))
            self._handle(events.Exited(number, None))
        finally:
            del self._processes[number]

    def _heard(self, process: int, line: ReplicaLine) -> None:
        event: Event
        match line:
            case ListeningLine(pid, address):
                event = events.Listening(process, pid, address)
            case ProgressLine(progress, stage):
                event = events.Progressed(process, progress, stage)
            case ReadyLine(info):
                event = events.Ready(process, info)
            case FailedLine(error):
                event = events.LoadFailed(process, error)
            case BeatLine():
                event = events.Beat(process)
        self._handle(event)

    # ---- reports

    def _new_report(self) -> NodeReport:
        self._seq += 1
        return NodeReport(
            boot=self._boot,
            seq=self._seq,
            epoch=self._state.epoch,
            generation=self._state.generation,
            inventory=self._survey.measure(),
            replicas=tuple(
                ReplicaReport(
                    incarnation=incarnation,
                    replica=replica,
                    memory_private=private_memory(replica.pid) if replica.pid else 0,
                )
                for incarnation, replica in self._state.replicas
            ),
            events=self._state.events,
        )

    async def _report_forever(self) -> None:
        """Report each change, and now and then without one; until it is taken, for the controller may come later."""
        while True:
            self._dirty.clear()
            if not await self._report():
                self._dirty.set()
                await asyncio.sleep(_RETRY)
            else:
                await asyncio.sleep(_REPORT_GAP)
            try:
                await asyncio.wait_for(self._dirty.wait(), _REPORT_EVERY)
            except TimeoutError:
                continue

    async def _report(self) -> bool:
        try:
            report = encode(self._new_report())
            call = self._worker.scheduler.xinfer_report(address=self._worker.address, report=report)
            return isinstance(await asyncio.wait_for(call, _RPC_TIMEOUT), str)
        except Exception as error:  # Dask raises whatever the scheduler raised
            logger.info("the controller did not take a report, will try again: %r", error)
            return False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the node agent failed", exc_info=error)


async def _inspect_file(spec: ModelSpec) -> ModelSpec:
    """The spec with what its file on this node says. Raises XinferError alone."""
    try:
        return await asyncio.to_thread(_inspect_here, spec)
    except XinferError:
        raise
    except Exception as error:
        logger.exception("looking at the file of %s", spec.uid)
        raise EngineError(f"the file of {spec.uid!r} could not be looked at: {error!r}") from error


def _inspect_here(spec: ModelSpec) -> ModelSpec:
    total, available = machine_memory()
    return inspect(spec, max(0, available - headroom(total)))


def _home_folder(home: str | None) -> Path:
    return Path(home or os.environ.get("XINFER_HOME") or "~/.xinfer").expanduser()


def _label_of(worker: "Worker") -> str:
    """The name that somebody gave the worker. Dask's own names are numbers and addresses."""
    return worker.name if isinstance(worker.name, str) and "://" not in worker.name else ""


def _file_name(replica_id: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in replica_id)


def _credentials_of(worker: "Worker") -> TlsCredentials:
    """The worker's own; Dask holds PEM text or paths. Raises EngineError on a cluster without TLS."""
    security: Any = worker.security
    parts = (security.tls_ca_file, security.tls_worker_cert, security.tls_worker_key)
    if not worker.address.startswith("tls://") or not all(parts):
        raise EngineError(f"Dask worker {worker.address} has no TLS; start the cluster with tls:// and certificates")
    ca, cert, key = (part if "\n" in part else Path(part).read_text() for part in parts)
    return TlsCredentials(ca=ca, cert=cert, key=key)
