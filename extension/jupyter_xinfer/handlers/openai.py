"""OpenAI's inference routes."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import ClassVar

import msgspec

from jupyter_xinfer.auth.permissions import MODELS_READ
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.handlers.event_stream import EventStream
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openai_requests import ChatRequest, CompletionRequest, SamplingFields
from jupyter_xinfer.protocol.openai_responses import ChatResponses, CompletionResponses, Responses, error_body
from xinfer_runtime.errors import XinferError, from_info
from xinfer_runtime.messages import Delta, GenerateRequest
from xinfer_runtime.routing.merge import merge

# Errors before the first token keep their HTTP status, as long as this much time does not pass without one: then the
# stream is opened anyway, because clients and proxies want to see headers.
HEADERS_AFTER_SECONDS = 10.0


class GenerateHandler(XinferHandler):
    """Runs one request: as one body, or as a stream of chunks."""

    auth_actions: ClassVar[dict[str, str]] = {"POST": "execute"}
    name: str

    async def run(self, body: SamplingFields, request: GenerateRequest, responses: Responses) -> None:
        self.set_header("X-Request-ID", request.id)
        with self.service.metrics.request(body.model, self.name) as watch:
            deltas = watch.observe(self.service.generate(body.model, request))
            async with contextlib.aclosing(deltas):
                if body.stream:
                    await self._stream(deltas, responses)
                else:
                    self.reply(responses.whole(await _merged(deltas)))

    async def _stream(self, deltas: AsyncGenerator[Delta], responses: Responses) -> None:
        first = asyncio.ensure_future(anext(deltas))
        try:
            await asyncio.wait((first,), timeout=HEADERS_AFTER_SECONDS)
            if first.done():
                _raise_error(first.result())
            async with EventStream(self) as events:
                try:
                    await self._send(events, responses, await first)
                    async for delta in deltas:
                        await self._send(events, responses, delta)
                except XinferError as error:
                    # The status line is long gone; clients look for `error` in the events.
                    self.log.warning("stream %s ended with an error: %s", responses.id, error)
                    await events.send(msgspec.json.encode(error_body(error)))
                await events.done()
        finally:
            if not first.done():
                first.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await first

    async def _send(self, events: EventStream, responses: Responses, delta: Delta) -> None:
        _raise_error(delta)
        chunks = responses.chunks(delta)
        if chunks:
            await events.send(*chunks)


def _raise_error(delta: Delta) -> None:
    if delta.error is not None:
        raise from_info(delta.error)


async def _merged(deltas: AsyncIterator[Delta]) -> Delta:
    parts = []
    async for delta in deltas:
        _raise_error(delta)
        parts.append(delta)
    return merge(parts, parts[-1].id)


class ChatHandler(GenerateHandler):
    name = "chat"

    @endpoint(MODELS_READ)
    async def post(self) -> None:
        body = decode(self.request.body, ChatRequest)
        request_id = f"chatcmpl-{uuid.uuid4().hex}"
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        responses = ChatResponses(request_id, body.model, include_usage=include_usage)
        await self.run(body, body.to_generate(request_id), responses)


class CompletionHandler(GenerateHandler):
    name = "completion"

    @endpoint(MODELS_READ)
    async def post(self) -> None:
        body = decode(self.request.body, CompletionRequest)
        request_id = f"cmpl-{uuid.uuid4().hex}"
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        responses = CompletionResponses(request_id, body.model, include_usage=include_usage)
        await self.run(body, body.to_generate(request_id), responses)
