"""A gateway's connection to the controller: the table of models, pushed, and the actions that change it.

Dask is imported when the session connects, in a thread: its import takes most of a second, which is not to delay the
start of a Jupyter server.
"""

import asyncio
import importlib
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.dask_comm import open_comm
from xinfer_runtime.cluster.model_table import ModelTable, OutOfStepError
from xinfer_runtime.cluster.protocol import (
    Answer,
    DemandReport,
    LoadReport,
    NodeList,
    Snapshot,
    decode,
    decode_watch,
    encode,
)
from xinfer_runtime.cluster.tunnel import open_tunnel
from xinfer_runtime.errors import ClusterUnavailable, ModelNotReady, from_info
from xinfer_runtime.models import ModelSpec, ModelStatus

logger = logging.getLogger("xinfer.session")

_CONNECT_SECONDS: Final = 5.0
_ACTION_SECONDS: Final = 120.0
_SILENCE_SECONDS: Final = 12.0
"""The controller sends a sign of life every 3 s."""
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 2.0
_TERMINATE_SECONDS = 30.0


class ClusterSession:
    """`scheduler` is the address of a Dask scheduler, `tls://host:port`; `credentials` open it.

    `models` is the live table, by uid. It keeps the last known state while the session reconnects by itself.
    """

    def __init__(self, scheduler: str, credentials: TlsCredentials) -> None:
        if not scheduler.startswith("tls://"):
            raise ClusterUnavailable(
                f"the scheduler address {scheduler!r} is not tls://; whoever reaches a Dask cluster without TLS can "
                "run code on it. Start the cluster with protocol tls:// and certificates"
            )
        self.scheduler = scheduler
        self.credentials = credentials
        self.dashboard: str | None = None
        self._table = ModelTable()
        self._connected = False
        self._callbacks: list[Callable[[str], None]] = []
        self._connection_callbacks: list[Callable[[bool], None]] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._problem = "not connected yet"

    @property
    def models(self) -> Mapping[str, ModelStatus]:
        return self._table.models

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def problem(self) -> str:
        """Why the session is not connected, for a person; empty while it is."""
        return "" if self._connected else self._problem

    async def connect(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Connect and get the table. Raises ClusterUnavailable within `timeout` seconds; then nothing keeps trying."""
        await asyncio.to_thread(importlib.import_module, "xinfer_runtime.cluster.install")
        self._task = asyncio.create_task(self._watch_forever())
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: self._connected)
        except TimeoutError:
            problem = self._problem
            await self.close()
            raise ClusterUnavailable(
                f"the Dask scheduler {self.scheduler} cannot be used within {timeout:.0f} s: {problem}"
            ) from None

    async def close(self) -> None:
        """Leave the cluster; what it runs goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Have `callback(uid)` called on the loop at each change of a model. Returns what ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def subscribe_connection(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Have `callback(connected)` called when the scheduler is lost or found again. Returns what ends that."""
        self._connection_callbacks.append(callback)
        return lambda: self._connection_callbacks.remove(callback)

    async def launch(self, spec: ModelSpec, *, replace: bool = False) -> ModelStatus:
        """Have the cluster run `spec`; returns when it is placed, before it is loaded. With `replace` it takes the
        place of the model of its name, each replica when its successor is ready.

        Raises Conflict, ModelFileError, DoesNotFit, ClusterUnavailable.
        """
        answer = await self._act("xinfer_launch", spec=encode(spec), replace=replace)
        if answer.status is None:
            raise ClusterUnavailable(f"{spec.uid!r} was launched and terminated by somebody else in the same moment")
        await self._caught_up(answer.revision)
        return self.models.get(spec.uid, answer.status)

    async def terminate(self, uid: str) -> None:
        """End a model; returns when its processes are gone. Raises ModelNotFound, ClusterUnavailable."""
        answer = await self._act("xinfer_terminate", uid=uid)
        await self._caught_up(answer.revision)
        with suppress(TimeoutError):
            async with asyncio.timeout(_TERMINATE_SECONDS):
                await self._until(lambda: uid not in self.models or not _leaving(self.models[uid]))

    async def cancel_launch(self, uid: str) -> None:
        """Give up a launch, whatever it is doing. Raises ModelNotFound, Conflict once it is ready."""
        answer = await self._act("xinfer_cancel", uid=uid)
        await self._caught_up(answer.revision)

    async def scale(self, uid: str, count: int) -> ModelStatus | None:
        """Have `count` replicas of a model; returns when they are placed. Removed ones finish their streams.

        Raises ModelNotFound, InvalidRequest, DoesNotFit (then nothing changed), ClusterUnavailable.
        """
        answer = await self._act("xinfer_scale", uid=uid, count=count)
        await self._caught_up(answer.revision)
        return self.models.get(uid, answer.status)

    async def nodes(self) -> NodeList:
        """What each node has, and which replicas it runs. Raises ClusterUnavailable."""
        return (await self._act("xinfer_nodes")).nodes or NodeList(nodes=())

    async def wake(self, uid: str) -> None:
        """Have a model that sleeps loaded; returns when it is placed. Raises ModelNotFound, DoesNotFit,
        ClusterUnavailable.
        """
        answer = await self._act("xinfer_wake", uid=uid)
        await self._caught_up(answer.revision)

    async def report_demand(self, report: DemandReport) -> None:
        """Tell the controller what is used here. Raises ClusterUnavailable."""
        await self._act("xinfer_demand", report=encode(report))

    async def report_load(self, report: LoadReport) -> bool:
        """Tell the controller how busy replicas are, and hear whether somebody looks at that. Raises
        ClusterUnavailable.
        """
        return bool((await self._act("xinfer_load", report=encode(report))).message)

    async def remove_replica(self, uid: str, replica_id: str) -> ModelStatus | None:
        """Remove this replica, and with the last one the model. Raises ModelNotFound, NotFound, ClusterUnavailable."""
        answer = await self._act("xinfer_remove_replica", uid=uid, replica=replica_id)
        await self._caught_up(answer.revision)
        return self.models.get(uid, answer.status)

    async def drain(self, node: str, *, undo: bool = False) -> str:
        """Move all replicas away from `node` (a label or an address) and give it no more; `undo` ends that.

        Returns what came of it, for a person. Raises NotFound, ClusterUnavailable.
        """
        answer = await self._act("xinfer_drain", node=node, undo=undo)
        await self._caught_up(answer.revision)
        return answer.message

    async def tunnel(self, address: str) -> socket.socket:
        """A connection to the replica at `address` through the scheduler. Raises OSError."""
        return await open_tunnel(self.scheduler, self.credentials, address)

    async def wait_until(
        self,
        uid: str,
        predicate: Callable[[ModelStatus | None], bool],
        timeout: float,  # noqa: ASYNC109
    ) -> ModelStatus | None:
        """Wait until `predicate` holds of the model's status (None: no such model), and return that status.

        Raises ModelNotReady after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: predicate(self.models.get(uid)))
        except TimeoutError:
            status = self.models.get(uid)
            state = "gone" if status is None else str(status.state)
            raise ModelNotReady(f"{uid!r} is still {state} after {timeout:.0f} s") from None
        return self.models.get(uid)

    # ---- actions

    async def _act(self, operation: str, **message: Any) -> Answer:
        try:
            comm = await open_comm(self.scheduler, self.credentials, _CONNECT_SECONDS)
            try:
                await comm.write({"op": operation, "reply": True, "close": True, **message})
                async with asyncio.timeout(_ACTION_SECONDS):
                    reply = await comm.read()
            finally:
                comm.abort()
        except OSError as error:
            raise ClusterUnavailable(f"the controller at {self.scheduler} did not answer: {error}") from error
        try:
            answer = decode(reply, Answer)
        except (msgspec.MsgspecError, TypeError) as error:
            raise ClusterUnavailable(
                f"the scheduler {self.scheduler} runs no controller, or another version of it"
            ) from error
        if answer.error is not None:
            raise from_info(answer.error)
        return answer

    async def _caught_up(self, revision: int) -> None:
        """Wait for the table to show the caller's own change; a lost watch is not worth failing for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._until(lambda: self._table.revision >= revision)

    # ---- the watch

    async def _watch_forever(self) -> None:
        from xinfer_runtime.cluster.install import ensure_installed

        delay = _FIRST_DELAY
        while True:
            try:
                wanted = (status.spec for status in self.models.values() if not status.replicas or not _leaving(status))
                await ensure_installed(self.scheduler, self.credentials, tuple(wanted))
                comm = await open_comm(self.scheduler, self.credentials, _CONNECT_SECONDS)
                try:
                    await comm.write({"op": "xinfer_watch", "reply": False})
                    while True:
                        async with asyncio.timeout(_SILENCE_SECONDS):
                            message = decode_watch(await comm.read())
                        self._apply(message)
                        delay = _FIRST_DELAY
                finally:
                    comm.abort()
            except (OSError, ClusterUnavailable, OutOfStepError, msgspec.MsgspecError) as error:
                self._lost(error)
            except Exception as error:  # Dask raises whatever the scheduler raised
                logger.exception("the watch of %s failed", self.scheduler)
                self._lost(error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def _apply(self, message: Any) -> None:
        changed = self._table.apply(message)
        if isinstance(message, Snapshot):
            self.dashboard = message.dashboard
        if isinstance(message, Snapshot) and not self._connected:
            self._connected = True
            logger.info("connected to the scheduler %s", self.scheduler)
            for on_connection in tuple(self._connection_callbacks):
                on_connection(True)
        self._notify()
        for uid in changed:
            for callback in tuple(self._callbacks):
                callback(uid)

    def _lost(self, error: Exception) -> None:
        self._problem = str(error) or repr(error)
        if self._connected:
            self._connected = False
            logger.warning("the scheduler %s is lost: %s", self.scheduler, self._problem)
            for on_connection in tuple(self._connection_callbacks):
                on_connection(False)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()


def _leaving(status: ModelStatus) -> bool:
    return all(replica.state == "draining" for replica in status.replicas)
