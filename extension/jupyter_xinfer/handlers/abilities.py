"""Routes for abilities that models of other kinds have: they say what is missing."""

import msgspec

from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.decoding import decode
from xinfer_runtime.errors import InvalidRequest, NotFound

ABILITIES = {
    "/v1/embeddings": "embed",
    "/v1/rerank": "rerank",
    "/v1/audio/transcriptions": "audio2text",
    "/v1/audio/translations": "audio2text",
    "/v1/audio/speech": "text2audio",
    "/v1/images/generations": "text2image",
    "/v1/images/edits": "image2image",
}
"""Paths, and the ability that a model needs to serve them."""


class _Named(msgspec.Struct):
    model: str | None = None


class AbilityHandler(XinferHandler):
    """Refused: no loaded model can do this"""

    @endpoint("models:read")
    async def post(self) -> None:
        ability = next(name for path, name in ABILITIES.items() if self.request.path.endswith(path))
        is_json = self.request.headers.get("Content-Type", "").startswith("application/json")
        model = decode(self.request.body, _Named).model if is_json else self.get_body_argument("model", None)
        if model:
            self.service.status(model)
            raise InvalidRequest(f"The model {model!r} does not have the ability {ability!r}.", param="model")
        raise NotFound(f"No loaded model has the ability {ability!r}.", param="model")
