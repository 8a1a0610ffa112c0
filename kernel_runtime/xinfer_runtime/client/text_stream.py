"""Streamed answers as iterators of text, for both clients."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Self

import httpx

from xinfer_runtime.client.answer_stream import AnswerStream
from xinfer_runtime.client.completion import Completion
from xinfer_runtime.client.connection import connection_errors
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.errors import ConnectionFailed


class _Answer:
    """The state of a stream, whoever reads it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._answer = AnswerStream()
        self._closed = False

    @property
    def result(self) -> Completion:
        """The answer so far; after the last piece the whole of it, with usage."""
        return self._answer.completion

    @property
    def text(self) -> str:
        return self.result.text


# The readers are functions of their own: a generator that holds the stream would keep it alive when it is dropped.
def _read(response: httpx.Response, endpoint: Endpoint, answer: AnswerStream) -> Iterator[str]:
    with closing(response):
        try:
            with connection_errors(endpoint):
                for piece in response.iter_bytes():
                    yield from answer.feed(piece)
                    if answer.done:
                        return
        except ConnectionFailed:
            # Closing from another thread breaks the read that is under way; that is no failure.
            if response.is_closed:
                return
            raise
        answer.check_complete()


async def _aread(response: httpx.Response, endpoint: Endpoint, answer: AnswerStream) -> AsyncIterator[str]:
    try:
        with connection_errors(endpoint):
            async for piece in response.aiter_bytes():
                for text in answer.feed(piece):
                    yield text
                if answer.done:
                    return
        answer.check_complete()
    finally:
        await response.aclose()


class TextStream(_Answer, Iterator[str]):
    """An answer as it comes: iterate over its pieces of text.

    Closing it, leaving a `with` block, or dropping it ends the generation in the server.
    """

    def __init__(self, response: httpx.Response, endpoint: Endpoint) -> None:
        super().__init__(response)
        self._pieces = _read(response, endpoint, self._answer)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        return next(self._pieces)

    def close(self) -> None:
        """Ends the generation, if it still runs."""
        self._closed = True
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncTextStream(_Answer, AsyncIterator[str]):
    """As TextStream, for `async for`. Close it, or use `async with`: dropping it is not enough here."""

    def __init__(self, response: httpx.Response, endpoint: Endpoint) -> None:
        super().__init__(response)
        self._pieces = _aread(response, endpoint, self._answer)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._closed:
            raise StopAsyncIteration
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Ends the generation, if it still runs."""
        self._closed = True
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
