"""What the handlers ask: the models of the cluster, launched, described, used and ended.

One `Service` per Jupyter server. It owns the way to the cluster and the router; it decides nothing about placement or
scheduling, which are the controller's and the engine's.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from jupyter_xinfer.abilities import require_ability
from jupyter_xinfer.auth.fair_share import FairShare
from jupyter_xinfer.auth.gate import Gate
from jupyter_xinfer.auth.meter import Meter
from jupyter_xinfer.auth.node_files import NodeFiles, files_of_launch
from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.cluster_access import ClusterAccess
from jupyter_xinfer.demand_meter import DemandMeter
from jupyter_xinfer.images.fetch import Fetcher
from jupyter_xinfer.images.image_parts import image_places, images_for
from jupyter_xinfer.load_metrics import ModelLoad
from jupyter_xinfer.load_teller import tell_load
from jupyter_xinfer.metrics import Metrics
from jupyter_xinfer.protocol.adapter_names import uid_of, with_adapter
from jupyter_xinfer.protocol.chat_messages import NO_IMAGES, Images, Message
from jupyter_xinfer.protocol.response_store import ResponseStore
from jupyter_xinfer.registrations import Registrations
from jupyter_xinfer.request_ids import current_request_id
from jupyter_xinfer.running_models import RunningModels
from jupyter_xinfer.running_requests import RunningRequests
from jupyter_xinfer.vector_pieces import in_pieces
from jupyter_xinfer.waking import Waking
from xinfer_runtime import __version__
from xinfer_runtime.catalog.resolve import MAX_REPLICAS, resolve
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.protocol import NodeList
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import (
    Cancelled,
    EngineError,
    InvalidRequest,
    ModelNotFound,
    Unavailable,
    from_info,
)
from xinfer_runtime.messages import Delta, EmbedRequest, GenerateRequest, Priority
from xinfer_runtime.models import EngineStats, LaunchRequest, ModelStatus, Replica, ReplicaState
from xinfer_runtime.routing.merge import whole
from xinfer_runtime.routing.router import Router

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 30.0

R = TypeVar("R", GenerateRequest, EmbedRequest)
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True)
class ServiceConfig:
    """What an administrator sets. `scheduler` None means a local cluster of this server's own."""

    home: Path
    base_url: str
    scheduler: str | None = None
    credentials: TlsCredentials | None = None
    launch_timeout: float = 3600.0
    body_timeout: float = 300.0
    """Seconds that the body of a request may take to come."""
    image_hosts: list[str] = field(default_factory=list)
    """Patterns of the hosts from which images are fetched that requests name by URL."""
    model_folders: list[str] = field(default_factory=list)
    """On the nodes, whose files callers who are no administrators may name; see `NodeFiles`."""
    share_weights: dict[str, float] = field(default_factory=dict)
    """Of callers, and of callers and models; see `FairShare`."""


class Service:
    def __init__(
        self,
        config: ServiceConfig,
        metrics: Metrics,
        gate: Gate,
        meter: Meter,
        emit: Callable[[dict[str, str]], None],
        log: Log,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.gate = gate
        self.meter = meter
        self.node_files = NodeFiles(config.model_folders)
        self.fair_share = FairShare(config.share_weights)
        self.responses = ResponseStore()
        self.last_activity = datetime.now(UTC)
        self._log = log
        self._emit = emit
        self._router: Router | None = None
        self._fetcher = Fetcher(config.image_hosts) if config.image_hosts else None
        self._subscribers: set[Callable[[str], None]] = set()
        self._activity: Callable[[datetime], None] = lambda _: None
        self._stopping = False
        self.registrations = Registrations(config.home / "registrations", log)
        self.requests = RunningRequests()
        self._demand = DemandMeter()
        self._tellers: list[asyncio.Task[None]] = []
        self.cluster = ClusterAccess(config.home, config.scheduler, config.credentials, self._cluster_changed, log)
        self.cluster.on_session(self._use_session)
        self.models = RunningModels(self.cluster, self.registrations, self._stats)
        self._waking = Waking(lambda: self.cluster.session, self._demand, config.launch_timeout)
        metrics.watch_load(self._load)

    # -- models ----------------------------------------------------------------------------------------------------

    async def launch(self, request: LaunchRequest, *, wait_ready: bool, in_place: bool = False) -> str:
        """Launch a model and return its uid; with `wait_ready`, when it is ready or with the reason why not. `in_place`
        replaces the model of that name, if there is one, which answers meanwhile.
        """
        self._refuse_while_stopping()
        self.node_files.require(current_principal(), files_of_launch(request))
        spec = replace(resolve(request, self.registrations.families()), created=time.time())
        current_principal().require_model(spec.uid)
        session = await self.cluster.open()
        with self.metrics.launch():
            await session.launch(spec, replace=in_place)
        if wait_ready:
            await self.wait_ready(spec.uid)
        return spec.uid

    async def wait_ready(self, uid: str) -> None:
        """Return when the model is ready; raise, and end it, when it fails."""

        def settled(status: ModelStatus | None) -> bool:
            final = (ReplicaState.READY, ReplicaState.FAILED, ReplicaState.DRAINING)
            return status is None or status.state in final

        session = await self.cluster.open()
        status = await session.wait_until(uid, settled, self.config.launch_timeout)
        if status is not None and status.error is not None and status.error.code == Cancelled.code:
            raise from_info(status.error)
        if status is None or status.state is ReplicaState.DRAINING:
            raise ModelNotFound(f"The model {uid!r} was terminated while it was being launched.", param="model_uid")
        if status.state is ReplicaState.FAILED:
            # Whoever waits hears the reason here and now; nothing broken is left behind for them to clean up.
            await session.terminate(uid)
            if status.error is not None:
                raise from_info(status.error)
            raise EngineError(f"The model {uid!r} failed to start; the log of its replica has the details.")

    async def terminate(self, uid: str) -> None:
        self.models.status(uid)
        session = await self.cluster.open()
        await session.terminate(uid)

    async def cancel_launch(self, uid: str) -> None:
        """Give up a launch at whatever stage; who waits for it gets `Cancelled`."""
        current_principal().require_model(uid)
        session = await self.cluster.open()
        await session.cancel_launch(uid)

    async def scale(self, uid: str, count: int) -> ModelStatus | None:
        """Have `count` replicas; those that go finish their streams."""
        self.models.status(uid)
        if count > MAX_REPLICAS:
            raise InvalidRequest(f"A model has at most {MAX_REPLICAS} replicas, not {count}.", param="replica")
        session = await self.cluster.open()
        return await session.scale(uid, count)

    async def add_replicas(self, uid: str, count: int) -> list[Replica]:
        """`count` more replicas, like those there are; returns the new ones, before they are ready."""
        before = self.models.status(uid)
        status = await self.scale(uid, before.spec.replica + count)
        known = {replica.id for replica in before.replicas}
        return [replica for replica in status.replicas if replica.id not in known] if status is not None else []

    async def remove_replica(self, uid: str, replica_id: str) -> int:
        """Remove one replica, and the model with its last one. Returns how many are left."""
        self.models.status(uid)
        session = await self.cluster.open()
        status = await session.remove_replica(uid, replica_id)
        return status.spec.replica if status is not None and status.state is not ReplicaState.DRAINING else 0

    async def drain(self, node: str, *, undo: bool = False) -> str:
        """Move all replicas away from a node and give it no more, or use it again. Returns what came of it."""
        session = await self.cluster.open()
        return await session.drain(node, undo=undo)

    async def nodes(self) -> NodeList:
        """What each node has and runs; nothing while no cluster was started."""
        session = self.cluster.session
        return await session.nodes() if session is not None else NodeList(nodes=())

    async def generate(self, model: str, request: GenerateRequest) -> AsyncGenerator[Delta]:
        """The deltas of one request to a model, or to one of its LoRA adapters; closing the generator aborts it in the
        engine.
        """
        caller = current_principal()
        uid, request = uid_of(model), self.fair_share.classed(caller, with_adapter(model, _traced(request)))
        self._router_to(uid, "generate")
        flow = self.fair_share.flow(caller, uid)
        with self.meter.request(caller, uid) as count, self._demand.request(uid) as answered:
            waking = self._when_awake(uid, lambda router: router.generate(uid, request, flow))
            answer = self.requests.abortable(uid, request.id, waking)
            async with aclosing(answer) as deltas:
                async for delta in deltas:
                    answered()
                    count.begin(delta)
                    if not delta.only_begins:
                        count.observe(delta)
                        yield delta

    async def embed(self, uid: str, request: EmbedRequest) -> AsyncGenerator[Delta]:
        """The vectors of the inputs in their order, those of a few at a time; of documents for a query, their scores.

        Each delta has the tokens used so far. Closing the generator aborts what is left.
        """
        self._router_to(uid, "embed" if request.query is None else "rerank")

        caller = current_principal()
        flow = self.fair_share.flow(caller, uid)

        with self.meter.request(caller, uid) as count, self._demand.request(uid) as answered:

            async def counted(router: Router, piece: EmbedRequest) -> AsyncGenerator[Delta]:
                async with aclosing(router.generate(uid, piece, flow)) as deltas:
                    async for delta in deltas:
                        count.begin(delta)
                        yield delta

            def pieces(router: Router) -> AsyncGenerator[Delta]:
                return in_pieces(partial(counted, router), _traced(request), len(router.stats(uid)))

            answer = self.requests.abortable(uid, request.id, self._when_awake(uid, pieces))
            async with aclosing(answer) as deltas:
                async for delta in deltas:
                    answered()
                    count.observe(delta)
                    yield delta

    def _router_to(self, uid: str, ability: str | None = None) -> Router:
        """The way to the model's replicas. Raises `InvalidRequest` where it does not have the ability."""
        self._refuse_while_stopping()
        status = self.models.status(uid)
        if ability is not None:
            require_ability(status, ability)
        if self._router is None:
            raise Unavailable("The service is not connected to its cluster; try again in a moment.")
        return self._router

    async def ask(self, model: str, request: GenerateRequest) -> Delta:
        """The answer to a request for which nothing is generated. It counts as a request, and costs no tokens."""
        uid = uid_of(model)
        self._router_to(uid)
        with self.meter.request(current_principal(), uid), self._demand.request(uid):
            answer = self._when_awake(uid, lambda router: router.generate(uid, _traced(request)))
            return await whole(answer, request.id)

    async def _when_awake(self, uid: str, run: Callable[[Router], AsyncGenerator[Delta]]) -> AsyncGenerator[Delta]:
        """What `run` gives, of a model that may have to be loaded for it: then the request waits for that."""
        await self._waking.awake(uid)
        async with aclosing(run(self._router_to(uid))) as deltas:
            async for delta in deltas:
                yield delta

    async def images(self, model: str, messages: Sequence[Message]) -> Images:
        """The images of `messages`. Raises `InvalidRequest` that names the first, where the model takes text only."""
        return (
            await images_for(self.models.status(uid_of(model)), messages, self._fetcher)
            if image_places(messages)
            else NO_IMAGES
        )

    def require_priority(self, wanted: Priority | None) -> None:
        """Raise `PermissionDenied` where the caller may not have the priority that he asks for."""
        self.fair_share.require(current_principal(), wanted)

    def info(self) -> dict[str, Any]:
        """The body of `GET /xinfer/info`."""
        cluster = self.cluster
        path = f"{self.config.base_url}xinfer/dask/status" if cluster.dashboard is not None else None
        return {
            "version": __version__,
            "base_url": self.config.base_url,
            "cluster": {"state": cluster.state, "scheduler": cluster.scheduler, "message": cluster.message},
            "dashboard": path,
        }

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call `callback(uid)` at every change of a model, until the returned function is called."""
        self._subscribers.add(callback)
        return lambda: self._subscribers.discard(callback)

    def note_activity(self) -> None:
        """Traffic counts as activity for Jupyter's and JupyterHub's idle shutdown."""
        self.last_activity = datetime.now(UTC)
        self._activity(self.last_activity)

    def on_activity(self, callback: Callable[[datetime], None]) -> None:
        """Call `callback` with the time of each request."""
        self._activity = callback

    # -- life cycle --------------------------------------------------------------------------------------------------

    def start(self) -> "asyncio.Task[object] | None":
        """Bring back what ran before, in the background. Returns the task, or None when there is nothing to do."""
        if self.config.scheduler is None and not has_desired_models(self.config.home):
            return None
        return asyncio.create_task(self._open_in_background(), name="xinfer-start")

    async def stop(self) -> None:
        """Refuse new work, then end the router, the session and the local cluster."""
        self._stopping = True
        for task in self._tellers:
            task.cancel()
        await asyncio.gather(*self._tellers, return_exceptions=True)
        if self._router is not None:
            await self._router.close()
            self._router = None
        await self.cluster.close()
        await self.gate.close()
        await self.meter.close()
        self.metrics.close()

    async def _open_in_background(self) -> None:
        """Until it succeeds: the cluster may come later than this server."""
        delay = _FIRST_DELAY
        while not self._stopping:
            try:
                await self.cluster.open()
                return
            except Unavailable as error:
                self._log.warning("jupyter-xinfer: %s; trying again in %.0f s", error, delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def _refuse_while_stopping(self) -> None:
        if self._stopping:
            raise Unavailable("The server is shutting down.")

    def _use_session(self, session: ClusterSession) -> None:
        if self._router is not None:
            self._router.follow(session)
        else:
            self._router = Router(session, watch=self.metrics.routing)
        if not self._tellers:
            self._tellers = [
                asyncio.create_task(self._demand.tell(lambda: self.cluster.session)),
                asyncio.create_task(tell_load(lambda: (self.cluster.session, self._router))),
            ]
        session.subscribe(self._model_changed)
        for uid in list(session.models):
            self._model_changed(uid)

    def _model_changed(self, uid: str) -> None:
        session = self.cluster.session
        status = session.models.get(uid) if session is not None else None
        if status is None:
            self._emit({"action": "removed", "model_uid": uid, "state": "terminated"})
        else:
            self._emit({"action": "state", "model_uid": uid, "state": status.state})
            self._waking.changed(uid, status)
        for callback in tuple(self._subscribers):
            callback(uid)

    def _cluster_changed(self) -> None:
        self._emit({"action": "cluster", "model_uid": "", "state": self.cluster.state})

    def _stats(self, uid: str) -> dict[str, EngineStats]:
        return self._router.stats(uid) if self._router is not None else {}

    def _load(self) -> dict[str, ModelLoad]:
        """What the metrics show of each model."""
        session, router = self.cluster.session, self._router
        if session is None or router is None:
            return {}
        return {uid: ModelLoad.of(uid, status, router) for uid, status in session.models.items()}


def _traced(request: R) -> R:
    return replace(request, trace=current_request_id())


def has_desired_models(home: Path) -> bool:
    """Whether a local cluster below `home` has models to bring back."""
    path = home / "cluster" / "desired.json"
    return path.exists() and b'"uid"' in path.read_bytes()
