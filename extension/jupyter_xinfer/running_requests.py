"""The requests that are being answered, so that one can be aborted by its id from another connection."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.request_ids import current_request_id
from xinfer_runtime.errors import Cancelled
from xinfer_runtime.messages import Delta


@dataclass
class _Running:
    uid: str
    owner: str
    """The caller's id."""
    sent_as: str
    """The id of the HTTP request that it answers, which the answer has in `X-Request-Id`."""
    waiting: "asyncio.Task[object] | None" = None
    """The task that waits for the next delta right now."""
    aborted: asyncio.Event = field(default_factory=asyncio.Event)


class RunningRequests:
    """By request id. Aborting costs a stream nothing until it happens: there is no task of its own per request."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    def abort(self, uid: str, request_id: str, owner: str | None = None) -> bool:
        """End that request of the model `uid` with `Cancelled` for its caller; False where there is none, or none of
        that `owner`.

        The id is that of the HTTP request, or of the answer's body. A request with several choices runs as several:
        `<id>-0`, `<id>-1`, ... All of them end.
        """
        if not request_id:
            return False
        found = [
            running
            for id, running in self._running.items()
            if running.uid == uid
            and owner in (None, running.owner)
            and request_id in (id, id.rpartition("-")[0], running.sent_as)
        ]
        for running in found:
            if not running.aborted.is_set():
                running.aborted.set()
                if running.waiting is not None:
                    running.waiting.cancel()
        return bool(found)

    async def abortable(self, uid: str, request_id: str, deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Delta]:
        """The same deltas, until the request is aborted."""
        running = self._running[request_id] = _Running(uid, current_principal().id, current_request_id())
        try:
            async with aclosing(deltas):
                while not running.aborted.is_set():
                    task = running.waiting = asyncio.current_task()
                    try:
                        delta = await anext(deltas)
                    except StopAsyncIteration:
                        return
                    except asyncio.CancelledError:
                        # It may also be the client that went away; then the cancellation is not ours to take back.
                        if not running.aborted.is_set() or task is None or task.uncancel():
                            raise
                        break
                    finally:
                        running.waiting = None
                    yield delta
                raise Cancelled(f"The request {request_id} was aborted.")
        finally:
            if self._running.get(request_id) is running:
                del self._running[request_id]
