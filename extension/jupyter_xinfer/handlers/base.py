"""What every route has in common: who calls, what happens when they leave, and how errors look."""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, NoReturn

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import ensure_async
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from jupyter_xinfer.auth.runtime_key import PREFIX
from jupyter_xinfer.protocol.openai_responses import error_body
from jupyter_xinfer.service import Service
from xinfer_runtime.errors import (
    AuthenticationRequired,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestTooLarge,
    XinferError,
)

MAX_BODY_BYTES = 32 * 2**20
_BEARER = re.compile(r"(?:bearer|token)\s+(.+)", re.IGNORECASE)
_FROM_STATUS: dict[int, type[XinferError]] = {
    400: InvalidRequest,
    401: AuthenticationRequired,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: RequestTooLarge,
}

Verb = Callable[..., Awaitable[None]]


def endpoint(method: Verb) -> Verb:
    """Marks a verb of an `XinferHandler`; every verb carries it.

    The verb's task is cancelled when the client goes away, and ends quietly then. Jupyter's own check for a login is
    switched off here because `XinferHandler.prepare` has already let in those who may, and answers 401 to the others
    where Jupyter would redirect to its login page.
    """

    @functools.wraps(method)
    async def run(self: "XinferHandler", *args: str) -> None:
        self.task = asyncio.current_task()
        try:
            await method(self, *args)
        except (asyncio.CancelledError, StreamClosedError):
            if not self.client_gone:
                raise
        finally:
            self.task = None

    return allow_unauthenticated(run)


class XinferHandler(APIHandler):
    """Base of our JSON routes. `auth_action` is what Jupyter's authorizer is asked, on the resource `xinfer`."""

    auth_resource = "xinfer"
    auth_actions: ClassVar[dict[str, str]] = {"GET": "read", "POST": "write", "DELETE": "write"}

    service: Service
    task: asyncio.Task[Any] | None = None
    client_gone = False

    def initialize(self, service: Service) -> None:
        self.service = service

    async def prepare(self) -> None:  # type: ignore[override]
        """Let in the runtime key, or whoever Jupyter knows and its authorizer allows; nobody else gets past here."""
        credential = _BEARER.match(self.request.headers.get("Authorization", ""))
        if credential is not None and credential.group(1).startswith(PREFIX):
            self._admit_runtime_key(credential.group(1))
        else:
            await self._identify_jupyter_user()
            await self._authorize_jupyter_user()
        if len(self.request.body) > MAX_BODY_BYTES:
            raise RequestTooLarge(f"The request body is larger than {MAX_BODY_BYTES // 2**20} MiB.")
        self.service.note_activity()

    def _admit_runtime_key(self, key: str) -> None:
        # Jupyter's prepare is not called: it would compare the key with the server's token or send it to the Hub. No
        # cookie is in play, so neither XSRF nor origin checks apply, and no Jupyter user either: the key opens these
        # routes only.
        self.current_user = self._jupyter_current_user = None
        if not self.check_host():
            raise PermissionDenied(f"This server does not answer for the host {self.request.host!r}.")
        if not self.service.runtime_key.matches(key):
            raise AuthenticationRequired("The API key is not valid on this server.")

    async def _identify_jupyter_user(self) -> None:
        try:
            await super().prepare()
        except HTTPError as error:
            # Jupyter checks XSRF first, and would tell a stranger about cookies instead of credentials.
            if error.status_code == 403 and "_xsrf" in (error.log_message or ""):
                if self.current_user is None:
                    self._raise_unknown()
                raise PermissionDenied(
                    "A browser's login needs the `X-XSRFToken` header for this, with the value of the `_xsrf` cookie."
                ) from error
            raise

    def _raise_unknown(self) -> NoReturn:
        raise AuthenticationRequired(
            "This route needs a caller: send the Jupyter token as `Authorization: Bearer <token>`, or log in."
        )

    async def _authorize_jupyter_user(self) -> None:
        if self.current_user is None:
            self._raise_unknown()
        action = self.auth_actions.get(self.request.method or "", "execute")
        allowed = await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, self.auth_resource))
        if not allowed:
            raise PermissionDenied(f"You are not allowed to {action} {self.auth_resource} on this server.")

    def on_connection_close(self) -> None:
        self.client_gone = True
        if self.task is not None:
            self.task.cancel()

    def reply(self, body: Any) -> None:
        """Answer 200 with `body` as JSON."""
        self.finish(body if isinstance(body, bytes) else msgspec.json.encode(body))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = as_xinfer_error(status_code, kwargs.get("exc_info"))
        self.set_status(error.status)
        if error.status == 401:
            self.set_header("WWW-Authenticate", 'Bearer realm="jupyter-xinfer"')
        if error.status in (429, 503):
            self.set_header("Retry-After", "5")
        self.finish(msgspec.json.encode(error_body(error)))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        # The caller's mistakes are the caller's to read; only our own failures deserve a traceback in the log.
        if not isinstance(value, XinferError) or value.status == 500:
            super().log_exception(typ, value, tb)


def as_xinfer_error(status_code: int, exc_info: Any) -> XinferError:
    """What to tell the caller about an exception that left a handler. Details of unexpected ones stay in the log."""
    error = exc_info[1] if exc_info else None
    if isinstance(error, XinferError):
        return error
    if isinstance(error, HTTPError) and status_code < 500:
        kind = _FROM_STATUS.get(status_code, InvalidRequest)
        return kind(error.log_message or error.reason or f"The request failed with status {status_code}.")
    return XinferError("The server failed to handle this request; its log has the details.")


class UnknownRoute(XinferHandler):
    """Answers below `/v1/` and `/xinfer/` where no route is: OpenAI clients expect JSON, not a login page."""

    async def _refuse(self) -> None:
        raise NotFound(f"There is no route {self.request.method} {self.request.path} on this server.")

    @endpoint
    async def get(self, *_: str) -> None:
        await self._refuse()

    @endpoint
    async def post(self, *_: str) -> None:
        await self._refuse()

    @endpoint
    async def put(self, *_: str) -> None:
        await self._refuse()

    @endpoint
    async def patch(self, *_: str) -> None:
        await self._refuse()

    @endpoint
    async def delete(self, *_: str) -> None:
        await self._refuse()
