"""The controller: a plugin of the Dask scheduler that owns the table of models. It does the I/O of `control_state`.

It speaks with gateways and node agents by RPC handlers alone. New stream handlers would be shorter, but an unknown
stream operation makes Dask drop the worker, so versions could never mix.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from distributed.comm.addressing import get_address_host, get_address_host_port
from distributed.core import Status
from distributed.diagnostics.plugin import SchedulerPlugin

from xinfer_runtime.cluster.actions import Actions
from xinfer_runtime.cluster.adoption import ADOPTION_SECONDS
from xinfer_runtime.cluster.control_events import (
    DrainAsked,
    Event,
    HeartbeatSeen,
    NodeLeft,
    Persist,
    Publish,
    ReplicasGone,
    Reported,
    Restored,
    SendSync,
    SyncFailed,
    Ticked,
)
from xinfer_runtime.cluster.control_state import ControlState
from xinfer_runtime.cluster.dask_comm import Comm
from xinfer_runtime.cluster.desired_table import Desired, DesiredTable
from xinfer_runtime.cluster.models_page import add_models_page
from xinfer_runtime.cluster.protocol import METRIC, Inspection, NodeReport, Snapshot, Sync, decode, encode
from xinfer_runtime.cluster.tunnel import refuse, relay
from xinfer_runtime.cluster.watchers import Watchers
from xinfer_runtime.errors import ErrorInfo, Unavailable
from xinfer_runtime.models import ModelSpec

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

logger = logging.getLogger("xinfer.controller")

PLUGIN_NAME: Final = "xinfer-controller"
_TICK = 1.0
_RPC_TIMEOUT = 5.0
_INSPECT_TIMEOUT = 30.0
_LOCK_WAIT = 10.0
_LOCK_POLL = 0.2
_RESTORE_WAIT = 0.5
_SAVE_AGAIN = 5.0
_SYNCS_AT_ONCE = 64
_AWAY_SECONDS = 15.0
"""What the next Dask worker of a node gets to come up, while the node's replicas go on."""
_AWAY_POLL = 0.5


class Controller(SchedulerPlugin):
    """Register it with `idempotent=True`. `home` keeps the desired table.

    Without it, `known` says what is wanted: the models of which the gateway knows that found a scheduler without us.
    """

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, home: str | None = None, known: tuple[ModelSpec, ...] = ()) -> None:
        self._home = home
        self._known = known
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers = Watchers()
        self._table: DesiredTable | None = None

    async def start(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        self.state = ControlState(epoch=secrets.token_hex(8))
        self.revision = 0
        self._actions = Actions(self)
        self._changed = asyncio.Event()
        self._sync_slots = asyncio.Semaphore(_SYNCS_AT_ONCE)
        self._save_lock = asyncio.Lock()
        self._unsaved: Desired | None = None
        self._save_at = 0.0
        self._table = DesiredTable(Path(self._home)) if self._home else None
        self.restored = asyncio.Event()
        self._nannies: dict[str, str] = {}
        if self._table is None:
            self.handle(Restored(self._known))
            self.restored.set()
        else:
            self._spawn(self._restore(self._table))
            # Mostly a matter of milliseconds, after which the first snapshot shows the models.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.restored.wait(), _RESTORE_WAIT)
        self._retire_workers = scheduler.retire_workers
        # An administrator's own way to take workers away: their replicas are to be ready elsewhere first.
        vars(scheduler)["retire_workers"] = self._move_and_retire
        self._adaptive_target = scheduler.adaptive_target
        vars(scheduler)["adaptive_target"] = self._workers_wanted
        scheduler.handlers.update(
            self._actions.handlers,
            retire_workers=self._move_and_retire,
            adaptive_target=self._workers_wanted,
            xinfer_report=self._report,
            xinfer_get=self._get,
            xinfer_watch=self._watch,
            xinfer_tunnel=self._tunnel,
        )
        add_models_page(scheduler, self.state.statuses, self._actions.load)
        self._spawn(self._tick())

    async def _move_and_retire(self, workers: Any = None, *, names: Any = None, **options: Any) -> Any:
        """Dask's `Scheduler.retire_workers`, after the replicas of the named workers moved, as far as they fit."""
        # Command lines make names text that are numbers in a LocalCluster; Dask takes both.
        wanted = {str(name) for name in (*(workers or ()), *(names or ()))}
        known = [w.address for w in self._scheduler.workers.values() if {w.address, str(w.name)} & wanted]
        moving = tuple(address for address in known if address in self.state.nodes())
        await self._actions.move_away(moving)
        if workers is not None:
            options["workers"] = workers
        if names is not None:
            options["names"] = names
        try:
            return await self._retire_workers(**options)
        finally:
            for address in set(moving) & set(self._scheduler.workers) & set(self.state.nodes()):
                self.handle(DrainAsked(address, drain=False))

    def _workers_wanted(self, *arguments: Any, **options: Any) -> int:
        """Dask's `Scheduler.adaptive_target`: at least those that serve, and one for each replica without a place."""
        serving = len(self.state.busy_nodes()) + self.state.unplaced() + min(self._actions.waiting, 1)
        return max(self._adaptive_target(*arguments, **options), serving)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._watchers.close()
        if self._table is not None:
            await asyncio.to_thread(self._table.release)

    def remove_worker(self, scheduler: "Scheduler", worker: str, **_: Any) -> None:
        self.handle(NodeLeft(worker))
        nanny = self._nannies.pop(worker, None)
        if nanny is not None:
            self._spawn(self._until_gone(worker, nanny))

    async def _until_gone(self, worker: str, nanny: str) -> None:
        """A lost worker's replicas are its nanny's: while that lives, they do, and its next worker reports them."""
        deadline = time.monotonic() + _AWAY_SECONDS
        while self.state.replicas_on(worker) and time.monotonic() < deadline:
            try:
                # Dask's own connections would try a closed port again and again.
                async with asyncio.timeout(_RPC_TIMEOUT):
                    _, writer = await asyncio.open_connection(*get_address_host_port(nanny))
                writer.transport.abort()
            except OSError as error:
                logger.info("the nanny of the lost worker %s is gone too: %r", worker, error)
                break
            await asyncio.sleep(_AWAY_POLL)
        self.handle(ReplicasGone(worker))

    def valid_workers_downscaling(self, scheduler: "Scheduler", workers: list[Any]) -> list[Any]:
        """Adaptive clusters may close nodes without replicas only."""
        busy = self.state.busy_nodes()
        return [worker for worker in workers if worker.address not in busy]

    # ---- RPC handlers: bytes in, bytes out

    async def _report(self, address: str, report: bytes) -> str:
        """Returns the epoch: the agent takes anything else for a controller that is not there yet."""
        worker = self._scheduler.workers.get(address)
        if worker is not None:
            described = decode(report, NodeReport)
            if described.outlasts and worker.nanny:
                self._nannies[address] = worker.nanny
            self.handle(Reported(address, described))
        return self.state.epoch

    async def _get(self) -> bytes:
        return encode(self._snapshot())

    async def _watch(self, comm: Comm) -> Status:
        """Hold `comm` and write every change to it, until the gateway leaves.

        A new controller says nothing before it knows what still runs: gateways go on with what they know meanwhile.
        """
        await self.restored.wait()
        await self.until(lambda: self.state.settled(time.time()), ADOPTION_SECONDS)
        self._watchers.add(comm, encode(self._snapshot()))
        try:
            await comm.read()
        except OSError:
            logger.debug("a gateway left")
        finally:
            self._watchers.discard(comm)
            comm.abort()
        return Status.dont_reply

    async def _tunnel(self, comm: Comm, address: str) -> Status:
        """Hold `comm` and relay a gateway's link to the replica at `address`, or its way to the dashboard, until either
        of them is gone."""
        try:
            known = {replica.address for status in self.state.statuses() for replica in status.replicas}
            known.add(urlsplit(_dashboard(self._scheduler) or "").netloc)
            if address and address in known:
                await relay(comm, address)
            else:
                await refuse(comm, "no replica has this address, nor the dashboard")
        except OSError:
            logger.debug("a gateway left its tunnel")
        finally:
            comm.abort()
        return Status.dont_reply

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            epoch=self.state.epoch,
            revision=self.revision,
            models=self.state.statuses(),
            dashboard=_dashboard(self._scheduler),
        )

    # ---- the state machine's outside

    def handle(self, event: Event) -> None:
        for instruction in self.state.handle(event, time.time()):
            match instruction:
                case SendSync(address, sync):
                    self._spawn(self._send_sync(address, sync))
                case Publish(uid, status):
                    self.revision += 1
                    self._watchers.publish(self.revision, uid, status)
                case Persist(specs, nodes):
                    self._unsaved = Desired(models=specs, nodes=nodes)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            try:
                self._tick_once()
            except Exception:
                # The loop that repairs everything else has to go on.
                logger.exception("a tick of the controller failed")

    def _tick_once(self) -> None:
        for worker in list(self._scheduler.workers.values()):
            metric = worker.metrics.get(METRIC)
            if metric:
                self.handle(HeartbeatSeen(worker.address, metric["boot"], metric["seq"]))
        self.handle(Ticked())
        if self._unsaved is not None and time.monotonic() >= self._save_at:
            self._spawn(self.persisted())
        self._watchers.beat(self.revision)

    async def _send_sync(self, address: str, sync: Sync) -> None:
        try:
            async with self._sync_slots:
                reply = await self._call_agent(address, _RPC_TIMEOUT, "xinfer_sync", sync=encode(sync))
                self.handle(Reported(address, decode(reply, NodeReport)))
        except Exception as error:  # Dask raises whatever the agent raised
            logger.warning("node %s did not take its wants, will try again: %r", address, error)
            self.handle(SyncFailed(address))

    async def inspect(self, address: str, spec: ModelSpec) -> Inspection | ErrorInfo:
        try:
            reply = await self._call_agent(address, _INSPECT_TIMEOUT, "xinfer_inspect", spec=encode(spec))
            return decode(reply, Inspection)
        except Exception as error:  # Dask raises whatever the agent raised
            return Unavailable(f"node {address} did not answer: {error!r}").info

    async def _call_agent(self, address: str, seconds: float, operation: str, **message: bytes) -> bytes:
        """Raises TypeError where the agent does not answer in its own terms, and whatever Dask raises."""
        remote = self._scheduler.rpc(address)
        reply = await asyncio.wait_for(getattr(remote, operation)(**message), seconds)
        if not isinstance(reply, bytes):
            raise TypeError(f"{operation} was answered with {reply!r}")
        return reply

    async def _restore(self, table: DesiredTable) -> None:
        """Read the table, once it is ours. Actions wait for it: what they persist is to hold the old models too."""
        try:
            if await self._own(table):
                desired = await asyncio.to_thread(table.load)
                self.handle(Restored(desired.models, desired.nodes))
            else:
                logger.warning("%s belongs to another cluster that runs: models will not be kept", table.path)
                self._table = None
        except msgspec.MsgspecError as error:
            aside = await asyncio.to_thread(table.set_aside)
            logger.error("%s cannot be read (%s), no model is restored; it is kept as %s", table.path, error, aside)
        except OSError as error:
            logger.error("%s cannot be used, models will not be kept: %s", table.path, error)
            self._table = None
        finally:
            self.restored.set()

    async def _own(self, table: DesiredTable) -> bool:
        """The former owner may be about to end: its Jupyter server was restarted."""
        deadline = time.monotonic() + _LOCK_WAIT
        while not await asyncio.to_thread(table.acquire):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOCK_POLL)
        return True

    async def persisted(self) -> None:
        """Write what is unsaved. Models run on without the file, so a full disk is logged and tried again."""
        async with self._save_lock:
            desired, self._unsaved = self._unsaved, None
            if desired is None or self._table is None:
                return
            try:
                await asyncio.to_thread(self._table.save, desired)
            except OSError as error:
                logger.error("%s was not written, a restart would not know this change: %s", self._table.path, error)
                self._unsaved = desired if self._unsaved is None else self._unsaved
                self._save_at = time.monotonic() + _SAVE_AGAIN

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for `condition`, at most `seconds`; what follows finds out whether it holds."""
        deadline = time.monotonic() + seconds
        while not condition() and (left := deadline - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the controller failed", exc_info=error)


def _dashboard(scheduler: "Scheduler") -> str | None:
    server = scheduler.services.get("dashboard")
    if server is None:
        return None
    # A dashboard on all interfaces is reached where the scheduler is.
    host = get_address_host(scheduler.address) if server.address in ("", "0.0.0.0", "::") else server.address
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
