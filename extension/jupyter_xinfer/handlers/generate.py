"""What all generating routes have in common: run the engines' requests, and write one body or a stream of events."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import ClassVar

from jupyter_xinfer.handlers.base import XinferHandler
from jupyter_xinfer.handlers.event_stream import EventStream
from jupyter_xinfer.handlers.interleave import interleave
from jupyter_xinfer.protocol.adapter_names import uid_of
from jupyter_xinfer.protocol.openai_responses import Encoder
from xinfer_runtime.errors import XinferError, from_info
from xinfer_runtime.logs import fields
from xinfer_runtime.messages import Delta, GenerateRequest
from xinfer_runtime.routing.merge import merge

logger = logging.getLogger("xinfer.access")

# Errors before the first token keep their HTTP status, as long as this much time does not pass without one: then the
# stream is opened anyway, because clients and proxies want to see headers.
HEADERS_AFTER_SECONDS = 10.0


class GenerateHandler(XinferHandler):
    """Runs the requests of one call: as one body, or as a stream of events."""

    auth_actions: ClassVar[dict[str, str]] = {"POST": "execute"}
    name: str
    """What the metrics call the route."""

    own_names: Mapping[str, str] = {}
    """What engines call fields of the request, and what its caller calls them."""

    async def run(self, model: str, requests: Sequence[GenerateRequest], encoder: Encoder, *, stream: bool) -> None:
        """Answer with what the engines make of `requests`."""
        try:
            await self._run(model, requests, encoder, stream=stream)
        except XinferError as error:
            chosen_by = "model" if uid_of(model) != model else "lora_name"
            error.param = {"lora": chosen_by, **self.own_names}.get(error.param or "", error.param)
            raise

    async def _run(self, model: str, requests: Sequence[GenerateRequest], encoder: Encoder, *, stream: bool) -> None:
        self.model = uid_of(model)
        with contextlib.ExitStack() as watches:
            streams = [
                watches.enter_context(self.service.metrics.request(uid_of(model), self.name)).observe(
                    self.service.generate(model, request)
                )
                for request in requests
            ]
            async with contextlib.aclosing(interleave(streams)) as deltas:
                if stream:
                    await self._stream(deltas, encoder)
                else:
                    self.reply(encoder.whole(await _merged(deltas, requests)))

    async def _stream(self, deltas: AsyncGenerator[tuple[int, Delta]], encoder: Encoder) -> None:
        first = asyncio.ensure_future(anext(deltas))
        try:
            await asyncio.wait((first,), timeout=HEADERS_AFTER_SECONDS)
            if first.done():
                _raise_error(first.result()[1])
            async with EventStream(self) as events:
                try:
                    await _send(events, encoder, *await first)
                    async for index, delta in deltas:
                        await _send(events, encoder, index, delta)
                except XinferError as error:
                    # The status line is long gone.
                    logger.warning(
                        "request %s: its stream ended with %s",
                        self.request_id,
                        error.code,
                        extra=fields(request_id=self.request_id, error=error.code),
                    )
                    await events.send(*encoder.failed(error))
                if encoder.closing is not None:
                    await events.send(encoder.closing)
        finally:
            if not first.done():
                first.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await first


async def _send(events: EventStream, encoder: Encoder, index: int, delta: Delta) -> None:
    _raise_error(delta)
    chunks = encoder.chunks(index, delta)
    if chunks:
        await events.send(*chunks)


def _raise_error(delta: Delta) -> None:
    if delta.error is not None:
        raise from_info(delta.error)


async def _merged(deltas: AsyncIterator[tuple[int, Delta]], requests: Sequence[GenerateRequest]) -> list[Delta]:
    parts: list[list[Delta]] = [[] for _ in requests]
    async for index, delta in deltas:
        _raise_error(delta)
        parts[index].append(delta)
    return [merge(part, request.id) for part, request in zip(parts, requests, strict=True)]
