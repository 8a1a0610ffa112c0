"""Server-sent events, written so that nothing between us and the client holds them back."""

import asyncio

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

KEEP_ALIVE_SECONDS = 15.0


class EventStream:
    """One SSE response. Use as an async context manager: entering sends the headers, leaving ends the response.

    While nothing is sent, a comment line goes out every `KEEP_ALIVE_SECONDS`, so that proxies keep the connection.
    """

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler
        self._keep_alive: asyncio.TimerHandle | None = None
        self._written = 0.0

    async def __aenter__(self) -> "EventStream":
        self._handler.set_header("Content-Type", "text/event-stream")
        self._handler.set_header("Cache-Control", "no-cache")
        # nginx buffers whole responses unless told not to.
        self._handler.set_header("X-Accel-Buffering", "no")
        await self._handler.flush()
        self._written = asyncio.get_running_loop().time()
        self._schedule_keep_alive(KEEP_ALIVE_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()

    async def send(self, *events: bytes | tuple[str, bytes]) -> None:
        """Send the events, each its data or its name and data, in one write.

        Returns when the socket has taken them, which is the back-pressure.
        """
        self._handler.write(b"".join(map(_frame, events)))
        self._written = asyncio.get_running_loop().time()
        await self._handler.flush()

    async def done(self) -> None:
        await self.send(b"[DONE]")

    def _schedule_keep_alive(self, seconds: float) -> None:
        self._keep_alive = asyncio.get_running_loop().call_later(seconds, self._keep_it_alive)

    def _keep_it_alive(self) -> None:
        # One timer that looks at the clock: one that is set anew with every event costs a tenth of sending it.
        silent = asyncio.get_running_loop().time() - self._written
        if silent < KEEP_ALIVE_SECONDS:
            self._schedule_keep_alive(KEEP_ALIVE_SECONDS - silent)
            return
        try:
            self._handler.write(b": keep-alive\n\n")
            self._handler.flush().add_done_callback(_retrieve)
        except StreamClosedError:
            return
        self._schedule_keep_alive(KEEP_ALIVE_SECONDS)


def _frame(event: bytes | tuple[str, bytes]) -> bytes:
    if isinstance(event, bytes):
        return b"data: " + event + b"\n\n"
    name, data = event
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _retrieve(future: "asyncio.Future[None]") -> None:
    # The client may have gone; its handler hears of that through on_connection_close.
    if not future.cancelled():
        future.exception()
