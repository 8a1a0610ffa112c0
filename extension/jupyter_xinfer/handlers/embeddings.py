"""Vectors of texts, and rankings of documents by a query."""

import contextlib
import uuid
from collections.abc import Mapping
from typing import ClassVar

from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.embedding_requests import EmbeddingsRequest, RerankRequest
from jupyter_xinfer.protocol.embedding_responses import EmbeddingsAnswer, RerankAnswer
from jupyter_xinfer.protocol.openapi import Takes
from xinfer_runtime.errors import XinferError
from xinfer_runtime.messages import EmbedRequest


class VectorHandler(XinferHandler):
    """What both have in common."""

    auth_actions: ClassVar[dict[str, str]] = {"POST": "execute"}
    name: ClassVar[str]
    """What the metrics call the route."""

    async def run(
        self, model: str, request: EmbedRequest, answer: EmbeddingsAnswer | RerankAnswer, own_names: Mapping[str, str]
    ) -> None:
        """Answer with what the engines make of `request`."""
        self.model = model
        try:
            with self.service.metrics.request(model, self.name) as watch:
                async with contextlib.aclosing(watch.observe(self.service.embed(model, request))) as deltas:
                    async for delta in deltas:
                        answer.add(delta)
        except XinferError as error:
            raise in_callers_words(error, own_names) from error
        self.reply(answer.body())


class EmbeddingsHandler(VectorHandler):
    """OpenAI's embeddings: a vector of each text"""

    name = "embeddings"

    @endpoint("models:read", takes=Takes(EmbeddingsRequest))
    async def post(self) -> None:
        body = decode(self.request.body, EmbeddingsRequest)
        model = self.service.models.named_or_able(body.model, "embed")
        answer = EmbeddingsAnswer(model, base64=body.encoding_format == "base64")
        await self.run(model, body.request(f"embd-{uuid.uuid4().hex}"), answer, body.own_names)


class RerankHandler(VectorHandler):
    """Documents by how relevant they are to a query"""

    name = "rerank"

    @endpoint("models:read", takes=Takes(RerankRequest))
    async def post(self) -> None:
        body = decode(self.request.body, RerankRequest)
        model = self.service.models.named_or_able(body.model, "rerank")
        request = body.request(f"rerank-{uuid.uuid4().hex}")
        await self.run(model, request, RerankAnswer(request.id, model, body), body.own_names)


def in_callers_words(error: XinferError, own_names: Mapping[str, str]) -> XinferError:
    """The same error about the field as its caller calls it; of one of several inputs, the message names which."""
    name, bracket, index = (error.param or "").partition("[")
    if name not in own_names:
        return error
    param = own_names[name] + bracket + index
    message = f"`{param}`: {error.message}" if bracket else error.message
    return type(error)(message, param=param, retry_after=error.retry_after)
