"""The Dask dashboard, through the Jupyter server and its login.

The dashboard itself knows no users and listens on loopback in plain HTTP. Only reading passes: GET and Bokeh's
websocket. No header of the browser's reaches it but the few that it needs; cookies and tokens stay here.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import ensure_async
from tornado import httpclient, web, websocket
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from jupyter_xinfer.auth.shape import bearer
from jupyter_xinfer.service import Service

# Bokeh sends whole documents over its websocket; tornado's default of 10 MiB is for chats.
MAX_MESSAGE_BYTES = 64 * 2**20
_REQUEST_HEADERS = ("Accept", "Accept-Language", "If-None-Match", "If-Modified-Since", "User-Agent")
_RESPONSE_HEADERS = ("Content-Type", "Cache-Control", "Etag", "Last-Modified")
_BOKEH_PROTOCOL = "bokeh"


def target_url(dashboard: str | None, path: str, query: str) -> str:
    """Where `path` below our route lies on the dashboard. Raises 404 while there is no dashboard."""
    if dashboard is None:
        raise web.HTTPError(404, "No Dask dashboard: the cluster is not running. Launch a model to start it.")
    base = urlsplit(dashboard)
    return f"{base.scheme}://{base.netloc}/{path.lstrip('/')}" + (f"?{query}" if query else "")


class _JupyterLogin(JupyterHandler):
    """Asks Jupyter who calls; our own keys and tokens are turned away before Jupyter or the Hub sees them."""

    service: Service

    async def prepare(self, **options: Any) -> None:
        credential = bearer(self.request.headers.get("Authorization", "")) or self.get_query_argument("token", "")
        if self.service.gate.recognises(credential):
            self.current_user = self._jupyter_current_user = None
            raise web.HTTPError(403, "API keys do not open the dashboard; it needs a Jupyter login.")
        await super().prepare(**options)


class DashboardHandler(_JupyterLogin):
    auth_resource = "xinfer"

    def initialize(self, service: Service) -> None:
        self.service = service

    @web.authenticated
    @authorized
    async def get(self, path: str) -> None:
        url = target_url(self.service.cluster.dashboard, path, self.request.query)
        headers = {name: self.request.headers[name] for name in _REQUEST_HEADERS if name in self.request.headers}
        resolver = await self.service.cluster.dashboard_resolver()
        client = SimpleAsyncHTTPClient(force_instance=True, resolver=resolver, max_body_size=MAX_MESSAGE_BYTES)
        try:
            answer = await client.fetch(
                url, headers=headers, follow_redirects=False, raise_error=False, decompress_response=True
            )
        except OSError as error:
            raise web.HTTPError(502, "The Dask dashboard does not answer.") from error
        finally:
            client.close()
        self.set_status(answer.code)
        for name in _RESPONSE_HEADERS:
            if name in answer.headers:
                self.set_header(name, answer.headers[name])
        if "Location" in answer.headers:
            self.set_header("Location", self._own_location(answer.headers["Location"]))
        await self.finish(answer.body if answer.code not in (204, 304) else None)

    def _own_location(self, location: str) -> str:
        """A redirect of the dashboard's, on our route; never one that leads elsewhere."""
        return f"{self.service.config.base_url}xinfer/dask/{urlsplit(location).path.lstrip('/')}"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        # Bokeh's pages carry inline scripts, which Jupyter's policy would not stop; framing stays forbidden.
        self.set_header("X-Content-Type-Options", "nosniff")


class DashboardSocketHandler(WebSocketMixin, websocket.WebSocketHandler, _JupyterLogin):
    """Bokeh's websocket, message by message in both directions."""

    auth_resource = "xinfer"

    def initialize(self, service: Service) -> None:
        self.service = service
        self._upstream: websocket.WebSocketClientConnection | None = None
        self._pump: asyncio.Task[None] | None = None

    @ws_authenticated
    async def get(self, path: str) -> None:
        allowed = await ensure_async(self.authorizer.is_authorized(self, self.current_user, "read", self.auth_resource))
        if not allowed:
            raise web.HTTPError(403)
        await super().get(path)

    async def open(self, path: str) -> None:
        super().open(path)
        url = target_url(self.service.cluster.dashboard, path, self.request.query)
        offered = [p.strip() for p in self.request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
        request = httpclient.HTTPRequest(
            url.replace("http", "ws", 1), headers={"Origin": self.service.cluster.dashboard or ""}
        )
        self._upstream = await websocket.websocket_connect(
            request,
            subprotocols=offered or None,
            max_message_size=MAX_MESSAGE_BYTES,
            resolver=await self.service.cluster.dashboard_resolver(),
        )
        self._pump = asyncio.create_task(self._from_upstream(self._upstream))

    async def _from_upstream(self, upstream: websocket.WebSocketClientConnection) -> None:
        while (message := await upstream.read_message()) is not None:
            try:
                await self.write_message(message, binary=isinstance(message, bytes))
            except websocket.WebSocketClosedError:
                break
        self.close()

    async def on_message(self, message: str | bytes) -> None:
        if self._upstream is not None:
            await self._upstream.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        super().on_close()
        if self._upstream is not None:
            self._upstream.close()

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        # Bokeh offers its protocol's name and, as a second "protocol", a session token; only the name is answered.
        return _BOKEH_PROTOCOL if _BOKEH_PROTOCOL in subprotocols else None
