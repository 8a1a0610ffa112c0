"""Models that sleep are loaded again for the request that needs them, which waits for it."""

import asyncio
import logging
from collections.abc import Callable

from jupyter_xinfer.demand_meter import DemandMeter, may_sleep
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import XinferError
from xinfer_runtime.models import ModelStatus, ReplicaState

logger = logging.getLogger("xinfer.demand")


class Waking:
    """`session` gives the one there is; a model gets `timeout` seconds to load."""

    def __init__(self, session: Callable[[], ClusterSession | None], demand: DemandMeter, timeout: float) -> None:
        self._session = session
        self._demand = demand
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()

    async def awake(self, uid: str) -> None:
        """Return when a model that may sleep does not, and is not loading either. Raises DoesNotFit, ModelNotReady."""
        session = self._session()
        status = session.models.get(uid) if session is not None else None
        if session is None or status is None or not may_sleep(status.spec):
            return
        if status.state is ReplicaState.SLEEPING:
            await session.wake(uid)
        await session.wait_until(uid, _no_longer_loading, self._timeout)

    def changed(self, uid: str, status: ModelStatus) -> None:
        """A model may fall asleep in the very moment that somebody asks it."""
        if status.state is ReplicaState.SLEEPING and self._demand.requests(uid):
            task = asyncio.get_running_loop().create_task(self._wake(uid))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _wake(self, uid: str) -> None:
        session = self._session()
        try:
            if session is not None:
                await session.wake(uid)
        except XinferError as error:
            logger.warning("%s cannot be loaded again: %s", uid, error)


def _no_longer_loading(status: ModelStatus | None) -> bool:
    if status is None:
        return True
    return status.state in (ReplicaState.READY, ReplicaState.FAILED, ReplicaState.DRAINING)
