# mypy: allow-untyped-calls
"""Nodes whose join token was revoked: the supervisor's listener refuses their certificates, and drops them at once.

The listener checks certificates against the CA's revocation list, before anything of what a peer sends is read.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.security import Security

from xinfer_runtime.cluster.authority import Authority
from xinfer_runtime.cluster.join_tokens import JoinTokens
from xinfer_runtime.cluster.private_files import write_private

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

logger = logging.getLogger("xinfer.join")

_POLL = 1.0


class RevocableSecurity(Security):
    """Dask's, with listeners that look into the revocation list in the file `crl`."""

    def __init__(self, crl: Path, **options: Any) -> None:
        super().__init__(**options)
        self._crl = crl
        self._contexts: list[ssl.SSLContext] = []

    def get_listen_args(self, role: str) -> dict[str, Any]:
        arguments: dict[str, Any] = super().get_listen_args(role)
        context: ssl.SSLContext = arguments["ssl_context"]
        context.load_verify_locations(self._crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        # A resumed session would not be checked again.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        self._contexts.append(context)
        return arguments

    def reload(self) -> None:
        """Take the list as it is now, for connections to come. Of two lists, OpenSSL uses the newer one."""
        for context in self._contexts:
            context.load_verify_locations(self._crl)


class Revocation:
    """Follows the join tokens of the supervisor's home. `write` makes the list for the first time."""

    def __init__(self, authority: Authority) -> None:
        self.crl = authority.home / "tls" / "crl.pem"
        self._authority = authority
        self._tokens = JoinTokens(authority.home)
        self._revoked: frozenset[int] = frozenset()

    def write(self) -> bool:
        """Write the list; whether it grew. Blocks."""
        revoked = frozenset(int(row.serial, 16) for row in self._tokens.rows() if row.revoked and row.serial)
        if self.crl.exists() and revoked == self._revoked:
            return False
        self._revoked = revoked
        write_private(self.crl, self._authority.revocation_list(sorted(revoked)))
        return True

    async def enforce(self, scheduler: "Scheduler", security: RevocableSecurity) -> None:
        """From now on: whoever is on the list is out within seconds."""
        while True:
            await asyncio.sleep(_POLL)
            try:
                if await asyncio.to_thread(self.write):
                    security.reload()
                    await self._expel(scheduler)
            except OSError as error:
                logger.error("revoked join tokens cannot be looked up: %s", error)

    async def _expel(self, scheduler: "Scheduler") -> None:
        for comm in [comm for comm in scheduler._comms if _serial_of(comm) in self._revoked]:
            logger.warning("%s is expelled: its join token was revoked", comm.peer_address)
            # The worker at the other end, if there is one, is gone with its connection.
            comm.abort()


def _serial_of(comm: Any) -> int | None:
    """Of the certificate that the peer showed."""
    stream = getattr(comm, "stream", None)
    peer = getattr(getattr(stream, "socket", None), "getpeercert", None)
    certificate = peer() if peer is not None else None
    return int(certificate["serialNumber"], 16) if certificate else None
