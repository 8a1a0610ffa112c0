"""The description of our routes, for programs and for people."""

from typing import Any

from jupyter_xinfer.auth.permissions import AUTHENTICATED
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.openapi import document
from jupyter_xinfer.protocol.openapi_page import page
from xinfer_runtime import __version__


class OpenApiHandler(XinferHandler):
    """The OpenAPI 3.1 document"""

    @endpoint(AUTHENTICATED)
    async def get(self) -> None:
        self.reply(self.document())

    def document(self) -> dict[str, Any]:
        # routes.py imports this module.
        from jupyter_xinfer.handlers.routes import described_routes

        return document(described_routes(self.service), self.service.config.base_url, __version__)


class OpenApiPageHandler(OpenApiHandler):
    """The OpenAPI document as a page to read"""

    media_type = "text/html"

    @endpoint(AUTHENTICATED)
    async def get(self) -> None:
        self.finish(page(self.document()), set_content_type="text/html; charset=utf-8")
