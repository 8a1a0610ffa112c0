"""What every route has in common: who calls, what happens when they leave, and how errors look."""

import asyncio
import functools
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, NoReturn, overload

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import ensure_async
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, stream_request_body

from jupyter_xinfer.access_log import CLIENT_CLOSED, log_access
from jupyter_xinfer.auth.permissions import ADMIN, AUTHENTICATED, PERMISSIONS, PUBLIC
from jupyter_xinfer.auth.principal import NOBODY, Principal, set_current_principal
from jupyter_xinfer.auth.shape import bearer
from jupyter_xinfer.protocol.openai_responses import error_body
from jupyter_xinfer.protocol.openapi import METHODS, NOTHING, Takes
from jupyter_xinfer.request_ids import HEADER, request_id, set_current_request_id
from jupyter_xinfer.service import Service
from xinfer_runtime.errors import (
    AuthenticationRequired,
    Conflict,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PermissionDenied,
    RequestTooLarge,
    XinferError,
)

MAX_BODY_BYTES = 32 * 2**20
DEFAULT_RETRY_AFTER = 5
_NUMBER = re.compile(r"[0-9]+")
_MOST_DIGITS = 15
_FROM_STATUS: dict[int, type[XinferError]] = {
    400: InvalidRequest,
    401: AuthenticationRequired,
    403: PermissionDenied,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    413: RequestTooLarge,
}

Verb = Callable[..., Awaitable[None]]


@overload
def endpoint(declared: Verb) -> Verb: ...
@overload
def endpoint(declared: str, *, takes: Takes = ..., gives: Any = ...) -> Callable[[Verb], Verb]: ...
def endpoint(declared: Verb | str, *, takes: Takes = NOTHING, gives: Any = Any) -> Verb | Callable[[Verb], Verb]:
    """Marks a verb of an `XinferHandler`, as `@endpoint("models:read")`; every verb carries it.

    The argument is the permission that a caller needs, or `PUBLIC` or `AUTHENTICATED`; without one it is `admin`.
    `takes` is what the OpenAPI document says of its requests, `gives` the type of its answer there.
    The verb's task is cancelled when the client goes away, and ends quietly then. Jupyter's own check for a login is
    switched off here because `XinferHandler.prepare` has already let in those who may, and answers 401 to the others
    where Jupyter would redirect to its login page.
    """
    if callable(declared):
        return _endpoint(declared, ADMIN, takes, gives)
    if declared not in (*PERMISSIONS, PUBLIC, AUTHENTICATED):
        raise ValueError(f"there is no permission {declared!r}")
    return functools.partial(_endpoint, permission=declared, takes=takes, gives=gives)


def _endpoint(method: Verb, permission: str, takes: Takes, gives: Any) -> Verb:
    @functools.wraps(method)
    async def run(self: "XinferHandler", *args: str) -> None:
        self.take_body()
        self.task = asyncio.current_task()
        try:
            await method(self, *args)
        except StreamClosedError:
            # A write may find out before tornado tells.
            self.client_gone = True
        except asyncio.CancelledError:
            if not self.client_gone:
                raise
        except RecursionError:
            raise InvalidRequest("The request is nested too deeply.") from None
        finally:
            self.task = None

    run.permission = permission  # type: ignore[attr-defined]
    run.takes = takes  # type: ignore[attr-defined]
    run.gives = gives  # type: ignore[attr-defined]
    return allow_unauthenticated(run)


def permission_of(handler: type[Any], method: str) -> str:
    """What the verb `method` of a handler declares; a verb that it does not have only says so, to known callers."""
    declared: str = getattr(getattr(handler, method.lower(), None), "permission", AUTHENTICATED)
    return declared


def verbs_of(handler: type[Any]) -> list[str]:
    """The methods that a handler has."""
    return [method for method in METHODS if hasattr(getattr(handler, method.lower()), "permission")]


@stream_request_body
class XinferHandler(APIHandler):
    """Base of our JSON routes. `auth_action` is what Jupyter's authorizer is asked, on the resource `xinfer`.

    Who calls is known before the body is read: nothing is kept of a stranger's, nor of one that is too large. What is
    refused is still read to its end, so that a client that writes all before it reads gets to see the answer.
    """

    auth_resource = "xinfer"
    auth_actions: ClassVar[dict[str, str]] = {"GET": "read", "POST": "write", "DELETE": "write"}

    media_type: ClassVar[str] = "application/json"
    """Of what the handler answers with."""

    service: Service
    principal: Principal | None = None
    task: asyncio.Task[Any] | None = None
    client_gone = False
    model: str | None = None
    """What the request asks, for the log."""

    @functools.cached_property
    def request_id(self) -> str:
        """By which client, gateway and replicas know the request; every answer has it in `X-Request-Id`."""
        return request_id(self.request.headers.get(HEADER))

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header(HEADER, self.request_id)

    def initialize(self, service: Service) -> None:
        self.service = service
        self._chunks: list[bytes] = []
        self._received = 0
        self._refusal: XinferError | HTTPError | None = None

    async def prepare(self) -> None:  # type: ignore[override]
        connection: Any = self.request.connection
        connection.set_body_timeout(self.service.config.body_timeout)
        try:
            await self._admit()
        except (XinferError, HTTPError) as error:
            verb = getattr(self, (self.request.method or "").lower(), None)
            # Who asks before sending a body gets the answer now; and so does who uses a verb that we do not have.
            if "Expect" in self.request.headers or not hasattr(verb, "permission"):
                raise
            self._refusal = error

    def data_received(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > MAX_BODY_BYTES and self._refusal is None:
            self._refusal = _too_large()
        if self._refusal is None:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def take_body(self) -> None:
        """The body has come: `request.body` has it now. Raises the refusal of a request that is not let in."""
        if self._refusal is not None:
            raise self._refusal
        self.request.body = b"".join(self._chunks)
        self._chunks.clear()

    async def _admit(self) -> None:
        """Let in whoever the gate or Jupyter knows and who may use this verb; nobody else gets past here."""
        needed = permission_of(type(self), self.request.method or "")
        set_current_principal(NOBODY)
        set_current_request_id(self.request_id)
        credential = bearer(self.request.headers.get("Authorization", ""))
        # A browser's preflight carries no credential, and gets no answer but Jupyter's CORS headers.
        if needed == PUBLIC or self.request.method == "OPTIONS":
            self._pass_jupyter_by()
        else:
            if credential is not None and self.service.gate.recognises(credential):
                self._pass_jupyter_by()
                self.principal = await self.service.gate.identify(credential)
            else:
                if self.service.gate.recognises(self.get_argument("token", "")):
                    raise AuthenticationRequired("API keys belong in the header: `Authorization: Bearer <key>`.")
                await self._identify_jupyter_user()
                await self._authorize_jupyter_user()
                user = self.current_user
                self.principal = self.service.gate.jupyter_user(user.username, user.name or "")
            self.principal.require(needed)
            set_current_principal(self.principal)
            self.service.note_activity()
        length = self.request.headers.get("Content-Length", "0")
        if not _NUMBER.fullmatch(length):
            raise InvalidRequest("The header `Content-Length` must be one number.")
        if len(length) > _MOST_DIGITS or int(length) > MAX_BODY_BYTES:
            raise _too_large()

    def _pass_jupyter_by(self) -> None:
        # Jupyter's prepare is not called: it would compare our keys with the server's token, or send them to the Hub,
        # and give probes a login cookie. No cookie is in play, so neither XSRF nor origin checks apply, and no Jupyter
        # user either: our credentials open these routes only.
        self.current_user = self._jupyter_current_user = None
        if not self.check_host():
            raise PermissionDenied(f"This server does not answer for the host {self.request.host!r}.")
        self.set_cors_headers()

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

    def on_finish(self) -> None:
        super().on_finish()
        caller = self.principal.id if self.principal is not None else NOBODY.name
        status = CLIENT_CLOSED if self.client_gone else self.get_status()
        log_access(self.request, status, self.request_id, caller, self.model)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.client_gone = True
        if self.task is not None:
            self.task.cancel()

    def reply(self, body: Any) -> None:
        """Answer 200 with `body` as JSON."""
        self.finish(body if isinstance(body, bytes) else msgspec.json.encode(body))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = as_xinfer_error(status_code, kwargs.get("exc_info"))
        self.set_status(error.status)
        if hasattr(self, "_jupyter_current_user"):
            # tornado dropped all headers; without these, a page of an allowed origin could not read the error.
            self.set_cors_headers()
        if error.status == 401:
            self.set_header("WWW-Authenticate", 'Bearer realm="jupyter-xinfer"')
        if error.status == 405:
            self.set_header("Allow", ", ".join([*verbs_of(type(self)), "OPTIONS"]))
        if error.status in (429, 503):
            self.set_header("Retry-After", str(math.ceil(error.retry_after or DEFAULT_RETRY_AFTER)))
        self.finish(msgspec.json.encode(error_body(error)))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        # The caller's mistakes are the caller's to read; only our own failures deserve a traceback in the log.
        if isinstance(value, XinferError) and value.place:
            self.log.error("request %s: %s", self.request_id, value)
        elif not isinstance(value, XinferError) or value.status == 500:
            super().log_exception(typ, value, tb)


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {MAX_BODY_BYTES // 2**20} MiB.")


def as_xinfer_error(status_code: int, exc_info: Any) -> XinferError:
    """What to tell the caller about an exception that left a handler. Details of unexpected ones stay in the log."""
    error = exc_info[1] if exc_info else None
    if isinstance(error, XinferError):
        return error
    if isinstance(error, HTTPError) and status_code < 500:
        kind = _FROM_STATUS.get(status_code, InvalidRequest)
        if kind is MethodNotAllowed:
            return kind("This route does not have that method; the `Allow` header has those that it has.")
        return kind(error.log_message or error.reason or f"The request failed with status {status_code}.")
    return XinferError("The server failed to handle this request; its log has the details.")


class UnknownRoute(XinferHandler):
    """Answers below `/v1/` and `/xinfer/` where no route is: OpenAI clients expect JSON, not a login page."""

    async def _refuse(self) -> None:
        raise NotFound(f"There is no route {self.request.method} {self.request.path} on this server.")

    @endpoint(AUTHENTICATED)
    async def get(self, *_: str) -> None:
        await self._refuse()

    @endpoint(AUTHENTICATED)
    async def post(self, *_: str) -> None:
        await self._refuse()

    @endpoint(AUTHENTICATED)
    async def put(self, *_: str) -> None:
        await self._refuse()

    @endpoint(AUTHENTICATED)
    async def patch(self, *_: str) -> None:
        await self._refuse()

    @endpoint(AUTHENTICATED)
    async def delete(self, *_: str) -> None:
        await self._refuse()
