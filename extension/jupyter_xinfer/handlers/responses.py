"""OpenAI's Responses API."""

import uuid

from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.handlers.base import endpoint
from jupyter_xinfer.handlers.generate import GenerateHandler
from jupyter_xinfer.protocol.answers import Response
from jupyter_xinfer.protocol.chat_messages import Message
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openapi import Takes
from jupyter_xinfer.protocol.responses_events import ResponsesEncoder
from jupyter_xinfer.protocol.responses_requests import ResponsesRequest


class ResponsesHandler(GenerateHandler):
    name = "responses"

    @endpoint("models:read", takes=Takes(ResponsesRequest, streams=True), gives=Response)
    async def post(self) -> None:
        body = decode(self.request.body, ResponsesRequest)
        caller, store = current_principal().id, self.service.responses
        history = store.get(caller, body.previous_response_id) if body.previous_response_id else []
        chat = body.as_chat(history)
        response_id = f"resp_{uuid.uuid4().hex}"

        def keep(turn: Message) -> None:
            if body.store is not False:
                store.put(caller, response_id, [*history, *body.messages(), turn])

        forced_calls = chat.offered_tools().constraint is not None
        self.own_names = {"messages": "input", "response_format": "tools" if chat.binds_calls_alone() else "text"}
        encoder = ResponsesEncoder(response_id, body, keep, forced_calls=forced_calls)
        images = await self.service.images(body.model, chat.messages)
        await self.run(body.model, chat.requests(response_id, images), encoder, stream=bool(body.stream))
