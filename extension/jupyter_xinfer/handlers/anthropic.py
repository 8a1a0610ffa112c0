"""Anthropic's Messages API."""

import uuid
from typing import Any

import msgspec
from msgspec.structs import replace

from jupyter_xinfer.handlers.base import as_xinfer_error, endpoint
from jupyter_xinfer.handlers.generate import GenerateHandler
from jupyter_xinfer.protocol.answers import AnthropicAnswer, CountedTokens
from jupyter_xinfer.protocol.anthropic_events import MessagesEncoder, anthropic_error_body
from jupyter_xinfer.protocol.anthropic_requests import CountTokensRequest, MessagesRequest
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openapi import Takes
from xinfer_runtime.messages import Tokenization


class AnthropicHandler(GenerateHandler):
    """Anthropic's clients send their key in a header of its own, and read errors of another shape."""

    _failure: bytes | None = None

    async def prepare(self) -> None:  # type: ignore[override]
        key = self.request.headers.get("X-Api-Key")
        if key and "Authorization" not in self.request.headers:
            self.request.headers["Authorization"] = f"Bearer {key}"
        await super().prepare()

    def finish(self, chunk: Any = None) -> Any:
        if self.get_status() >= 400 and self._failure is not None:
            chunk, self._failure = self._failure, None
        return super().finish(chunk)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = as_xinfer_error(status_code, kwargs.get("exc_info"))
        self._failure = msgspec.json.encode(anthropic_error_body(error))
        super().write_error(status_code, **kwargs)


class MessagesHandler(AnthropicHandler):
    name = "messages"

    @endpoint("models:read", takes=Takes(MessagesRequest, streams=True), gives=AnthropicAnswer)
    async def post(self) -> None:
        body = decode(self.request.body, MessagesRequest)
        chat = body.as_chat()
        message_id = f"msg_{uuid.uuid4().hex}"
        forced_calls = chat.offered_tools().constraint is not None
        self.own_names = {"response_format": "tools" if chat.binds_calls_alone() else "output_config"}
        encoder = MessagesEncoder(message_id, body.model, forced_calls=forced_calls, shows_thoughts=body.shows_thoughts)
        images = await self.service.images(body.model, chat.messages)
        await self.run(body.model, chat.requests(message_id, images), encoder, stream=bool(body.stream))


class CountTokensHandler(AnthropicHandler):
    name = "count_tokens"

    @endpoint("models:read", takes=Takes(CountTokensRequest), gives=CountedTokens)
    async def post(self) -> None:
        body = decode(self.request.body, CountTokensRequest)
        request_id = f"count-{uuid.uuid4().hex}"
        # The replica renders and tokenizes the prompt and has nothing to compute.
        chat = body.as_chat()
        [request] = chat.requests(request_id, await self.service.images(body.model, chat.messages))
        delta = await self.service.ask(body.model, replace(request, tokenize=Tokenization()))
        self.reply({"input_tokens": len(delta.token_ids)})
