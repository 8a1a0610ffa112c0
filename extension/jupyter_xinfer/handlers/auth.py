"""Logging in: whether a credential is needed, tokens for a name and a password, and their end."""

import msgspec
from msgspec import Struct

from jupyter_xinfer.auth.logins import TokenPair
from jupyter_xinfer.auth.permissions import AUTHENTICATED, PUBLIC
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.answers import AuthRequired
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openapi import Takes
from xinfer_runtime.errors import InvalidRequest


class AuthRequiredHandler(XinferHandler):
    """Xinference's client asks this first and sends its key only if the answer is true."""

    @endpoint(PUBLIC, gives=AuthRequired)
    async def get(self) -> None:
        self.reply({"auth": True})


class LoginRequest(Struct):
    username: str
    password: str


class RefreshRequest(Struct):
    refresh_token: str


class TokenHandler(XinferHandler):
    """The body is read by a type whose errors name fields and show no values."""

    @endpoint(PUBLIC, takes=Takes(LoginRequest), gives=TokenPair)
    async def post(self) -> None:
        body = decode(self.request.body, LoginRequest)
        address = self.request.remote_ip or ""
        pair = await self.service.gate.logins.log_in(body.username, body.password, address)
        self.set_header("Cache-Control", "no-store")
        self.reply(msgspec.to_builtins(pair))


class RefreshHandler(XinferHandler):
    @endpoint(PUBLIC, takes=Takes(RefreshRequest), gives=TokenPair)
    async def post(self) -> None:
        body = decode(self.request.body, RefreshRequest)
        pair = await self.service.gate.logins.refresh(body.refresh_token)
        self.set_header("Cache-Control", "no-store")
        self.reply(msgspec.to_builtins(pair))


class LogoutHandler(XinferHandler):
    """Ends the login whose access token is the credential: all of its tokens, at once."""

    @endpoint(AUTHENTICATED, gives=None)
    async def post(self) -> None:
        if self.principal is None or self.principal.session is None:
            raise InvalidRequest("Only the access token of a login can be logged out; keys are revoked instead.")
        await self.service.gate.logins.revoke(self.principal.session)
        self.reply(None)
