"""How a node gets credentials of its own: the supervisor's endpoint and the node's side of it.

One TLS connection per question, one JSON line each way. The node first asks for the CA's certificate, which it knows
by the fingerprint in its token; it says the token's secret only to an endpoint that this CA vouches for. The node's
private key never leaves it.
"""

import asyncio
import logging
import ssl
import time

import msgspec
from msgspec import Struct

from xinfer_runtime.cluster import certificates
from xinfer_runtime.cluster.authority import Addresses, Authority
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.join_tokens import JoinToken, JoinTokens
from xinfer_runtime.errors import (
    ClusterUnavailable,
    ErrorInfo,
    InvalidRequest,
    PermissionDenied,
    XinferError,
    from_info,
)

logger = logging.getLogger("xinfer.join")

_LINE_LIMIT = 16 << 10
_SECONDS = 10.0
_AT_ONCE = 8


class CaQuestion(Struct, frozen=True, tag="ca"):
    pass


class JoinQuestion(Struct, frozen=True, tag="join"):
    """`request` is a certificate request, PEM."""

    secret: str
    request: str


class JoinAnswer(Struct, frozen=True, kw_only=True):
    ca: str = ""
    cert: str = ""
    scheduler: str = ""
    error: ErrorInfo | None = None


Question = CaQuestion | JoinQuestion


class JoinServer:
    """The supervisor's endpoint. It answers anybody, so it reads little, waits briefly and serves few at a time."""

    def __init__(self, authority: Authority, credentials: TlsCredentials, scheduler: str) -> None:
        self._authority = authority
        self._credentials = credentials
        self._scheduler = scheduler
        self._tokens = JoinTokens(authority.home)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises OSError."""
        context = await asyncio.to_thread(self._credentials.server_context)
        # Who joins has no certificate yet; the token is what it shows.
        context.verify_mode = ssl.CERT_NONE
        self._server = await asyncio.start_server(
            self._serve, host, port, ssl=context, limit=_LINE_LIMIT, ssl_handshake_timeout=_SECONDS
        )
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS), self._slots:
                line = await reader.readline()
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, ValueError) as error:
            logger.info("a joining node went away: %r", error)
        finally:
            writer.transport.abort()

    async def _answer(self, line: bytes) -> JoinAnswer:
        try:
            question = msgspec.json.decode(line, type=Question)
        except (ValueError, RecursionError):
            return JoinAnswer(error=InvalidRequest("the join endpoint was asked something else").info)
        if isinstance(question, CaQuestion):
            return JoinAnswer(ca=self._authority.ca)
        try:
            return await asyncio.to_thread(self._join, question)
        except XinferError as error:
            logger.warning("a node was not let in: %s", error)
            return JoinAnswer(error=error.info)

    def _join(self, question: JoinQuestion) -> JoinAnswer:
        try:
            key = certificates.requested_key(question.request)
        except ValueError as error:
            raise InvalidRequest(f"the certificate request is not acceptable: {error}") from error
        serial = certificates.new_serial()
        token = self._tokens.redeem(question.secret, time.time(), serial)
        logger.info("a node joined with the token %s", token)
        cert = self._authority.sign_key(key, f"node {token}", serial)
        return JoinAnswer(ca=self._authority.ca, cert=cert, scheduler=self._scheduler)


async def join(token: JoinToken) -> tuple[TlsCredentials, Addresses]:
    """Get credentials for this node. Raises ClusterUnavailable, PermissionDenied."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    ca = (await _ask(token.address, CaQuestion(), stranger)).ca
    try:
        genuine = certificates.fingerprint(ca) == token.fingerprint
    except ValueError:
        genuine = False
    if not genuine:
        raise PermissionDenied(
            f"{token.address} is not the supervisor that made this token: its CA is another one. Nothing was sent to it"
        )
    known = ssl.create_default_context(cadata=ca)
    known.check_hostname = False
    key = certificates.new_key()
    answer = await _ask(token.address, JoinQuestion(token.secret, certificates.new_request(key)), known)
    if answer.error is not None:
        raise from_info(answer.error)
    return TlsCredentials(ca=ca, cert=answer.cert, key=key), Addresses(answer.scheduler, token.address)


async def _ask(address: str, question: Question, context: ssl.SSLContext) -> JoinAnswer:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=context, server_hostname="", limit=_LINE_LIMIT
            )
            try:
                writer.write(msgspec.json.encode(question) + b"\n")
                return msgspec.json.decode(await reader.readline(), type=JoinAnswer)
            finally:
                writer.transport.abort()
    except (OSError, ValueError) as error:
        raise ClusterUnavailable(f"the supervisor's join endpoint {address} did not answer: {error!r}") from error
