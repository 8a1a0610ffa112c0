"""A long-running Dask task on each worker that has replicas: what tells Dask's own machinery that the worker is in use.

Idle timeouts, those of Dask Gateway and of the Kubernetes operator included, look at tasks alone, and know nothing of
replicas. The task has left its thread (`secede`), so it is in nobody's way.
"""

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from distributed import Client, secede

if TYPE_CHECKING:
    from distributed.worker import Worker

logger = logging.getLogger("xinfer.agent")

TASK_NAME: Final = "xinfer-serving"
_CONNECT_SECONDS = 10.0

_released: dict[str, threading.Event] = {}
"""By the worker's address: a task cannot be handed an event from outside, but runs in the worker's own process."""


class Lease:
    """The task of `worker`, while it is wanted. It is submitted from the worker: it ends with it, whatever happens."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._client: Client | None = None
        self._future: Any = None

    async def set(self, wanted: bool) -> None:
        """Hold the lease or let it go. A scheduler that does not answer now is asked again at the next call."""
        if wanted == (self._future is not None and not self._future.done()):
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await (self._hold() if wanted else self.release())
        except (OSError, TimeoutError) as error:
            logger.info("the lease of %s is left as it is: %r", self._worker.address, error)

    async def _hold(self) -> None:
        await self.release()
        address = self._worker.address
        _released[address] = threading.Event()
        self._client = await Client(
            self._worker.scheduler.address,
            security=self._worker.security,
            asynchronous=True,
            set_as_default=False,
            timeout=_CONNECT_SECONDS,
            name=TASK_NAME,
        )
        self._future = self._client.submit(
            _serve, address, key=f"{TASK_NAME}-{address}", workers=[address], allow_other_workers=False, pure=False
        )

    async def release(self) -> None:
        """Let it go, if there is one."""
        event = _released.pop(self._worker.address, None)
        if event is not None:
            event.set()
        client, self._client, self._future = self._client, None, None
        if client is not None:
            await client.close()


def _serve(address: str) -> None:
    event = _released.get(address)
    if event is not None:
        secede()
        event.wait()
