"""The server's view of the key store: everything in memory, read again whenever the file has changed.

A request costs one `stat` of the file, and nothing of SQLite. The file is read in a thread when its stamp differs from
the one of the last reading, so that a key that another process revoked is refused at the next request.
"""

import asyncio
import contextlib
import logging
import time

from jupyter_xinfer.auth.api_key import ApiKey
from jupyter_xinfer.auth.key_store import KeyStore, Stamp
from xinfer_runtime.errors import Unavailable

WRITE_SECONDS = 15.0
# Two changes within one tick of the file system's clock have the same stamp: a stamp is trusted when it is older.
SETTLED_NS = 50_000_000

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class KeyRing:
    def __init__(self, store: KeyStore, log: Log) -> None:
        self.store = store
        self._log = log
        self._by_digest: dict[bytes, ApiKey] = {}
        self._revoked_logins: dict[str, float] = {}
        self._read: Stamp | None = None
        self._used: dict[str, float] = {}
        self._lock = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None

    async def find(self, digest: bytes) -> ApiKey | None:
        """The key with this digest, as the file is now."""
        await self._refresh()
        return self._by_digest.get(digest)

    async def is_login_revoked(self, *ids: str) -> bool:
        await self._refresh()
        return any(login in self._revoked_logins for login in ids)

    async def revoke_login(self, login: str, expires: float) -> bool:
        """Revoke a login or a refresh token, at once and for later starts; false if it was revoked before."""
        first = await asyncio.to_thread(self.store.revoke_login, login, expires)
        self._revoked_logins[login] = expires
        return first

    def note_use(self, key: ApiKey) -> None:
        """Remember that `key` was used now; it is written to the file every `WRITE_SECONDS`."""
        self._used[key.id] = time.time()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_later(), name="xinfer-key-use")

    async def close(self) -> None:
        """Write what is left to write."""
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        await self._write()

    async def _refresh(self) -> None:
        if self.store.stamp() == self._read:
            return
        async with self._lock:
            stamp = self.store.stamp()
            if stamp == self._read:
                return
            keys, logins = await asyncio.to_thread(lambda: (self.store.keys(), self.store.revoked_logins()))
            self._by_digest = {key.digest: key for key in keys}
            self._revoked_logins = logins
            settled = stamp is None or time.time_ns() - stamp[0] > SETTLED_NS
            self._read = stamp if settled else (-1, -1, -1)

    async def _write_later(self) -> None:
        await asyncio.sleep(WRITE_SECONDS)
        await self._write()

    async def _write(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await asyncio.to_thread(self.store.note_use, used)
        except Unavailable as error:
            self._log.warning("jupyter-xinfer: the last use of %d API keys was not written: %s", len(used), error)
