"""What gateways ask of the controller: launch, cancel, terminate, scale, drain. They wait; `control_state` decides."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from xinfer_runtime.cluster.control_events import (
    CancelAsked,
    DemandSeen,
    DrainAsked,
    Event,
    LaunchAsked,
    RemovalAsked,
    Reported,
    ScaleAsked,
    TerminateAsked,
    WakeAsked,
)
from xinfer_runtime.cluster.control_state import ControlState
from xinfer_runtime.cluster.observed_load import ObservedLoad
from xinfer_runtime.cluster.protocol import Answer, DemandReport, Inspection, LoadReport, NodeList, decode, encode
from xinfer_runtime.errors import Cancelled, ErrorInfo, XinferError
from xinfer_runtime.models import ModelSpec

NODE_WAIT: Final = 30.0
DRAIN_WAIT: Final = 30.0
MOVE_WAIT: Final = 90.0
"""Seconds that replicas get to become ready elsewhere; below what a gateway waits for the answer."""


class Table(Protocol):
    """What the actions need of the controller."""

    restored: asyncio.Event

    @property
    def state(self) -> ControlState: ...

    @property
    def revision(self) -> int: ...

    def handle(self, event: Event) -> None: ...

    async def persisted(self) -> None: ...

    async def inspect(self, address: str, spec: ModelSpec) -> Inspection | ErrorInfo: ...

    async def until(self, condition: Callable[[], bool], seconds: float) -> None: ...


class Actions:
    """The RPC handlers, by name in `handlers`: bytes in, an encoded `Answer` out."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._launching: dict[str, set[asyncio.Task[Answer]]] = {}
        self.waiting = 0
        """Launches and more replicas that wait for the cluster's first node."""
        self.load = ObservedLoad()
        self.handlers: dict[str, Callable[..., Awaitable[bytes]]] = {
            "xinfer_launch": self._launch,
            "xinfer_cancel": self._cancel,
            "xinfer_terminate": self._terminate,
            "xinfer_scale": self._scale,
            "xinfer_remove_replica": self._remove_replica,
            "xinfer_drain": self._drain,
            "xinfer_nodes": self._nodes,
            "xinfer_wake": self._wake,
            "xinfer_demand": self._demand,
            "xinfer_load": self._load,
        }

    async def _launch(self, spec: bytes, replace: bool = False) -> bytes:
        return await self._answer(lambda: self._launch_unless_cancelled(decode(spec, ModelSpec), replace=replace))

    async def _cancel(self, uid: str) -> bytes:
        return await self._answer(lambda: self._do_cancel(uid))

    async def _terminate(self, uid: str) -> bytes:
        return await self._answer(lambda: self._change(uid, TerminateAsked(uid)))

    async def _scale(self, uid: str, count: int) -> bytes:
        return await self._answer(lambda: self._do_scale(uid, count))

    async def _remove_replica(self, uid: str, replica: str) -> bytes:
        return await self._answer(lambda: self._change(uid, RemovalAsked(uid, replica)))

    async def _drain(self, node: str, undo: bool) -> bytes:
        return await self._answer(lambda: self._do_drain(node, undo=undo))

    async def _nodes(self) -> bytes:
        nodes = NodeList(nodes=self._table.state.node_statuses())
        return encode(Answer(revision=self._table.revision, nodes=nodes))

    async def _wake(self, uid: str) -> bytes:
        return await self._answer(lambda: self._change(uid, WakeAsked(uid)))

    async def _demand(self, report: bytes) -> bytes:
        return await self._answer(lambda: self._note_demand(decode(report, DemandReport)))

    async def _load(self, report: bytes) -> bytes:
        self.load.note(decode(report, LoadReport))
        return encode(Answer(revision=self._table.revision, message="watched" if self.load.watched else ""))

    async def move_away(self, addresses: tuple[str, ...]) -> None:
        """Have the nodes' replicas run elsewhere, as far as they fit there. Raises NotFound."""
        for address in addresses:
            self._table.handle(DrainAsked(address))
        await self._table.until(lambda: not any(self._moving(address) for address in addresses), MOVE_WAIT)

    # ---- the actions

    async def _answer(self, action: Callable[[], Awaitable[Answer]]) -> bytes:
        try:
            await self._table.restored.wait()
            return encode(await action())
        except XinferError as error:
            return encode(Answer(error=error.info))

    async def _change(self, uid: str, event: Event) -> Answer:
        self._table.handle(event)
        await self._table.persisted()
        return Answer(revision=self._table.revision, status=self._table.state.status(uid))

    async def _launch_unless_cancelled(self, spec: ModelSpec, *, replace: bool) -> Answer:
        task = asyncio.create_task(self._do_launch(spec, replace=replace))
        tasks = self._launching.setdefault(spec.uid, set())
        tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            tasks.discard(task)
            if not tasks:
                self._launching.pop(spec.uid, None)
        if task.cancelled():
            raise Cancelled(f"the launch of {spec.uid!r} was cancelled")
        return task.result()

    async def _do_launch(self, spec: ModelSpec, *, replace: bool) -> Answer:
        state = self._table.state
        await self._table.until(lambda: not state.draining(spec.uid), DRAIN_WAIT)
        state.check_launch(spec, in_place=replace)
        await self._first_node()
        addresses = state.nodes()
        inspections = await asyncio.gather(*(self._table.inspect(address, spec) for address in addresses))
        refusals: dict[str, ErrorInfo] = {}
        found: list[ModelSpec] = []
        for address, inspection in zip(addresses, inspections, strict=True):
            if isinstance(inspection, ErrorInfo):
                refusals[address] = inspection
                continue
            self._table.handle(Reported(address, inspection.report))
            if inspection.error is not None:
                refusals[address] = inspection.error
            elif inspection.spec is not None:
                # Each node finds the file by itself when it starts a replica: paths may differ, and change.
                found.append(inspection.spec)
        fitting = _for_most_nodes(found, spec.replica) if found else spec
        fitting = msgspec.structs.replace(fitting, path=spec.path, created=spec.created or time.time())
        return await self._change(spec.uid, LaunchAsked(fitting, refusals, replace))

    async def _first_node(self) -> None:
        """Nodes may be about to join again, or an adaptive cluster about to grow."""
        self.waiting += 1
        try:
            await self._table.until(lambda: bool(self._table.state.nodes()), NODE_WAIT)
        finally:
            self.waiting -= 1

    async def _do_scale(self, uid: str, count: int) -> Answer:
        if self._table.state.status(uid) is not None:
            await self._first_node()
        return await self._change(uid, ScaleAsked(uid, count))

    async def _do_cancel(self, uid: str) -> Answer:
        """Before the model is in the table there is a task to end; afterwards, a model."""
        tasks = self._launching.get(uid)
        if tasks and self._table.state.status(uid) is None:
            for task in tasks:
                task.cancel()
            return Answer(revision=self._table.revision)
        return await self._change(uid, CancelAsked(uid))

    async def _note_demand(self, report: DemandReport) -> Answer:
        self._table.handle(DemandSeen(report))
        return Answer(revision=self._table.revision)

    async def _do_drain(self, node: str, *, undo: bool) -> Answer:
        state = self._table.state
        addresses = state.find_nodes(node)
        if undo:
            for address in addresses:
                self._table.handle(DrainAsked(address, drain=False))
            return Answer(revision=self._table.revision, message=f"{node} is used again")
        await self.move_away(addresses)
        stuck = [text for address in addresses for text in state.stuck_on(address)]
        left = [replica for address in addresses for replica in state.replicas_on(address)]
        if stuck:
            message = f"{node} gets no new replica, but not all of its own can move: {'; '.join(stuck)}"
        elif left:
            message = f"{node} gets no new replica; still moving: {', '.join(left)}"
        else:
            message = f"{node} is empty and gets no new replica"
        return Answer(revision=self._table.revision, message=message)

    def _moving(self, address: str) -> bool:
        """Whether replicas are still there that need not stay."""
        state = self._table.state
        return len(state.replicas_on(address)) > len(state.stuck_on(address))


def _for_most_nodes(found: list[ModelSpec], replicas: int) -> ModelSpec:
    """What the nodes found out, which differs by what they have room for: the most that so many nodes have room for."""
    by_size = sorted(found, key=lambda each: each.memory_bytes, reverse=True)
    return by_size[min(replicas, len(by_size)) - 1]
