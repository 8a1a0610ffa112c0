"""Conversations that callers go on with by naming an earlier response. In memory, bounded, and lost with the server."""

from collections import OrderedDict

import msgspec

from jupyter_xinfer.protocol.chat_messages import Message
from xinfer_runtime.errors import NotFound

MAX_RESPONSES = 256
"""Conversations that one caller can go on with; the oldest are forgotten."""
MAX_BYTES = 16 << 20
"""Of one caller's conversations together."""
MAX_CALLERS = 256


class ResponseStore:
    """Messages by caller and response. A caller never sees another one's."""

    def __init__(
        self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES, max_callers: int = MAX_CALLERS
    ) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._max_callers = max_callers
        self._kept: OrderedDict[str, OrderedDict[str, bytes]] = OrderedDict()

    def put(self, caller: str, response_id: str, messages: list[Message]) -> None:
        """Keep the conversation that ends with this response, without its instructions."""
        kept = self._kept.setdefault(caller, OrderedDict())
        self._kept.move_to_end(caller)
        kept[response_id] = msgspec.msgpack.encode(messages)
        while kept and (len(kept) > self._max_responses or sum(map(len, kept.values())) > self._max_bytes):
            kept.popitem(last=False)
        while len(self._kept) > self._max_callers:
            self._kept.popitem(last=False)

    def get(self, caller: str, response_id: str) -> list[Message]:
        """Raises `NotFound` for a response that this caller has not, or no longer."""
        kept = self._kept.get(caller)
        found = kept.get(response_id) if kept is not None else None
        if found is None:
            raise NotFound(
                f"There is no response {response_id!r} to go on with; the server keeps the last "
                f"{self._max_responses} of each caller until it stops. Send the conversation as `input`.",
                param="previous_response_id",
            )
        return msgspec.msgpack.decode(found, type=list[Message])
