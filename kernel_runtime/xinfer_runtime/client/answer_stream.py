"""A streamed answer, decoded without I/O."""

from xinfer_runtime.client.completion import Completion, CompletionBuilder
from xinfer_runtime.client.errors import ConnectionFailed
from xinfer_runtime.client.sse import SseDecoder

DONE = "[DONE]"


class AnswerStream:
    """Bytes of a completion stream in, pieces of text out.

    Attributes:
        done: the server has said that the answer is complete.
    """

    def __init__(self) -> None:
        self._events = SseDecoder()
        self._builder = CompletionBuilder()
        self.done = False

    def feed(self, piece: bytes) -> list[str]:
        """The text that is new. Raises the error that the server sent instead of going on."""
        texts = []
        for data in self._events.feed(piece):
            if data == DONE:
                self.done = True
                break
            if text := self._builder.add(data):
                texts.append(text)
        return texts

    def check_complete(self) -> None:
        """To be called when the bytes have ended."""
        if not self.done:
            raise ConnectionFailed("The server closed the connection before the answer was complete: did it stop?")

    @property
    def completion(self) -> Completion:
        """The answer so far."""
        return self._builder.completion
