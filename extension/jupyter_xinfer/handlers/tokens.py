"""Texts to tokens and back, in the replica that has the vocabulary."""

import uuid

from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.answers import Text, Tokens
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openapi import Takes
from jupyter_xinfer.protocol.tokens import DetokenizeRequest, TokenizeRequest, TokenTextsRequest
from xinfer_runtime.errors import InvalidRequest


class TokenizeHandler(XinferHandler):
    """The tokens of a text or of a conversation"""

    @endpoint("models:read", takes=Takes(TokenizeRequest), gives=Tokens)
    async def post(self) -> None:
        body = decode(self.request.body, TokenizeRequest)
        model = self.service.models.named_or_only(body.model)
        delta = await self.service.ask(model, body.request(f"tokenize-{uuid.uuid4().hex}"))
        self.reply(body.answer(delta, self.service.models.context_length(model)))


class DetokenizeHandler(XinferHandler):
    """The text of tokens"""

    @endpoint("models:read", takes=Takes(DetokenizeRequest), gives=Text)
    async def post(self) -> None:
        body = decode(self.request.body, DetokenizeRequest)
        model = self.service.models.named_or_only(body.model)
        try:
            delta = await self.service.ask(model, body.request(f"detokenize-{uuid.uuid4().hex}"))
        except InvalidRequest as error:
            error.param = "tokens"
            raise
        self.reply(body.answer(delta))


class TokenTextsHandler(XinferHandler):
    """The text of each token, as Xinference's client of embedding models asks for it"""

    @endpoint("models:read", takes=Takes(TokenTextsRequest))
    async def post(self) -> None:
        body = decode(self.request.body, TokenTextsRequest)
        try:
            delta = await self.service.ask(body.model, body.request(f"tokens-{uuid.uuid4().hex}"))
        except InvalidRequest as error:
            error.param = "input" if error.param == "token_ids" else error.param
            raise
        self.reply(body.answer(delta))
