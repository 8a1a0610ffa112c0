"""Routes for abilities that models of other kinds have: they say what is missing."""

import msgspec

from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.forms import is_form, read_form
from xinfer_runtime.errors import InvalidRequest, NotFound

ABILITIES = {
    "/v1/audio/transcriptions": "audio2text",
    "/v1/audio/translations": "audio2text",
    "/v1/audio/speech": "text2audio",
    "/v1/images/generations": "text2image",
    "/v1/images/edits": "image2image",
    "/v1/images/variations": "image2image",
    "/v1/images/inpainting": "inpainting",
    "/v1/images/ocr": "ocr",
    "/v1/video/generations": "text2video",
    "/v1/video/generations/image": "image2video",
    "/v1/video/generations/flf": "firstlastframe2video",
}
"""Paths, and the ability that a model needs to serve them, in Xinference's words."""


class _Named(msgspec.Struct):
    model: str | None = None


class AbilityHandler(XinferHandler):
    """Refused: no loaded model can do this"""

    @endpoint("models:read")
    async def post(self) -> None:
        path = max((path for path in ABILITIES if self.request.path.endswith(path)), key=len)
        model = self._model()
        if model:
            self.service.models.status(model)
            raise InvalidRequest(f"The model {model!r} does not have the ability {ABILITIES[path]!r}.", param="model")
        raise NotFound(f"No loaded model has the ability {ABILITIES[path]!r}.", param="model")

    def _model(self) -> str | None:
        content_type = self.request.headers.get("Content-Type", "")
        if is_form(content_type):
            return read_form(content_type, self.request.body).fields.get("model")
        return decode(self.request.body or b"{}", _Named).model
