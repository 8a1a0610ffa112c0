"""Bodies of answers with vectors and with rankings.

Vectors come as bytes and in parts: each part is encoded when it comes, so that a large answer never keeps the event
loop for long.
"""

from array import array
from base64 import b64encode
from sys import byteorder
from typing import Any

import msgspec

from jupyter_xinfer.protocol.embedding_requests import RerankRequest
from xinfer_runtime.messages import Delta

_encoder = msgspec.json.Encoder()


class EmbeddingsAnswer:
    """OpenAI's list of embeddings, made of the deltas of one request."""

    def __init__(self, model: str, *, base64: bool) -> None:
        self._model = model
        self._base64 = base64
        self._items: list[bytes] = []
        self._tokens = 0

    def add(self, delta: Delta) -> None:
        for vector in delta.vectors:
            shown = b'"%b"' % b64encode(vector) if self._base64 else _encoder.encode(numbers(vector))
            self._items.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (len(self._items), shown))
        if delta.usage is not None:
            self._tokens = delta.usage.prompt_tokens

    def body(self) -> bytes:
        return b'{"object":"list","model":%b,"data":[%b],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
            _encoder.encode(self._model),
            b",".join(self._items),
            self._tokens,
            self._tokens,
        )


class RerankAnswer:
    """Jina's and Xinference's list of results, the most relevant first, made of the deltas of one request."""

    def __init__(self, request_id: str, model: str, request: RerankRequest) -> None:
        self._id = request_id
        self._model = model
        self._request = request
        self._scores: list[float] = []
        self._tokens = 0

    def add(self, delta: Delta) -> None:
        self._scores += [numbers(vector)[0] for vector in delta.vectors]
        if delta.usage is not None:
            self._tokens = delta.usage.prompt_tokens

    def body(self) -> dict[str, Any]:
        texts = self._request.texts() if self._request.return_documents else None
        order = sorted(range(len(self._scores)), key=lambda index: -self._scores[index])
        lengths = {"input_tokens": self._tokens, "output_tokens": 0} if self._request.return_len else None
        return {
            "id": self._id,
            "model": self._model,
            "results": [
                {
                    "index": index,
                    "relevance_score": self._scores[index],
                    "document": {"text": texts[index]} if texts is not None else None,
                }
                for index in order[: self._request.top_n]
            ],
            "meta": {"api_version": None, "billed_units": None, "tokens": lengths, "warnings": None},
            "usage": {"prompt_tokens": self._tokens, "total_tokens": self._tokens},
        }


def numbers(vector: bytes) -> list[float]:
    """The numbers of little-endian float32."""
    values = array("f", vector)
    if byteorder == "big":
        values.byteswap()
    return values.tolist()
