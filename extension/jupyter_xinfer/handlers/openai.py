"""OpenAI's chat and text completions."""

import uuid

from jupyter_xinfer.handlers.base import endpoint
from jupyter_xinfer.handlers.generate import GenerateHandler
from jupyter_xinfer.protocol.answers import ChatCompletion, TextCompletion
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openai_requests import ChatRequest, CompletionRequest
from jupyter_xinfer.protocol.openai_responses import ChatResponses, CompletionResponses
from jupyter_xinfer.protocol.openapi import Takes
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import GenerateRequest


class ChatHandler(GenerateHandler):
    name = "chat"

    @endpoint("models:read", takes=Takes(ChatRequest, streams=True), gives=ChatCompletion)
    async def post(self) -> None:
        body = decode(self.request.body, ChatRequest)
        self.service.require_priority(body.wanted_priority())
        request_id = f"chatcmpl-{uuid.uuid4().hex}"
        requests = body.requests(request_id, await self.service.images(body.model, body.messages))
        encoder = ChatResponses(
            request_id,
            body.model,
            choices=len(requests),
            choices_per_prompt=len(requests),
            include_usage=body.include_usage,
            logprobs=bool(body.logprobs),
            forced_calls=body.offered_tools().constraint is not None,
        )
        self.own_names = body.own_names()
        await self.run(body.model, requests, encoder, stream=bool(body.stream))


class CompletionHandler(GenerateHandler):
    name = "completion"

    @endpoint("models:read", takes=Takes(CompletionRequest, streams=True), gives=TextCompletion)
    async def post(self) -> None:
        body = decode(self.request.body, CompletionRequest)
        self.service.require_priority(body.priority)
        request_id = f"cmpl-{uuid.uuid4().hex}"
        requests = body.requests(request_id)
        self.own_names = body.own_names()
        texts = {tokens: await self._text(body.model, tokens) for tokens in body.echoed_tokens()}
        encoder = CompletionResponses(
            request_id,
            body.model,
            echoes=body.echoes(texts),
            choices_per_prompt=body.n or 1,
            candidates_per_prompt=body.candidates,
            include_usage=body.include_usage,
            logprobs=body.logprobs is not None,
        )
        await self.run(body.model, requests, encoder, stream=bool(body.stream))

    async def _text(self, model: str, tokens: tuple[int, ...]) -> str:
        request = GenerateRequest(id=f"echo-{uuid.uuid4().hex}", token_ids=tokens, detokenize=True)
        try:
            return (await self.service.ask(model, request)).text
        except InvalidRequest as error:
            error.param = self.own_names.get(error.param or "", error.param)
            raise
