"""The sending side of a link: one write for everything of a loop turn; a full socket makes bigger frames."""

import asyncio
from collections.abc import Callable

from xinfer_runtime.routing.frames import Message, encode_frames, encode_message


class Outbox:
    """Messages for `writer`. `collect` is asked for more each time, so that what it holds back is merged meanwhile."""

    def __init__(self, writer: asyncio.StreamWriter, collect: Callable[[], list[Message]] | None = None) -> None:
        self._writer = writer
        self._collect = collect
        self._messages: list[bytes] = []
        self._wake = asyncio.Event()

    def put(self, message: Message) -> None:
        """Raises FrameError if the message is too big for a frame."""
        self._messages.append(encode_message(message))
        self._wake.set()

    def wake(self) -> None:
        """`collect` has something."""
        self._wake.set()

    async def run(self) -> None:
        """Send for ever. Raises OSError when the connection is gone, FrameError for a collected message too big."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            messages, self._messages = self._messages, []
            if self._collect is not None:
                messages += [encode_message(message) for message in self._collect()]
            if messages:
                self._writer.write(encode_frames(messages))
                await self._writer.drain()
