"""Who used which model for how many tokens, by the hour: SQLite below `<home>/usage`.

The server adds up in memory and writes every few seconds in a thread; a request costs one addition. Hours instead of
single requests keep the file small however busy the server is.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from xinfer_runtime.errors import Unavailable

WRITE_SECONDS = 5.0
HOUR = 3600
_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    hour INTEGER NOT NULL, caller TEXT NOT NULL, model TEXT NOT NULL, requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, PRIMARY KEY (hour, caller, model)) WITHOUT ROWID
"""
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens
"""

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
Place = tuple[int, str, str]
Amount = tuple[int, int, int]


class UsageRow(Struct, frozen=True):
    """Use of a model by a caller in one hour, which begins at `hour` (seconds since the epoch)."""

    hour: int
    caller: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


def tokens_by_caller(rows: Iterable[UsageRow]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row.caller] = found.get(row.caller, 0) + row.prompt_tokens + row.completion_tokens
    return found


class Ledger:
    def __init__(self, home: Path, log: Log) -> None:
        self.path = home / "usage" / "usage.sqlite"
        self._log = log
        self._pending: dict[Place, Amount] = {}
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def add(self, caller: str, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one request; on the event loop only."""
        self._merge((int(time.time()) // HOUR * HOUR, caller, model), (1, prompt_tokens, completion_tokens))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_later(), name="xinfer-usage")

    def rows(self, since: float = 0.0) -> list[UsageRow]:
        """What is in the file, from the hour of `since` on. Blocks."""
        try:
            if not self.path.exists():
                return []
        except OSError as error:
            raise self._unusable(error) from error
        with self._open() as database:
            found = database.execute("SELECT * FROM usage WHERE hour >= ? ORDER BY hour", (since // HOUR * HOUR,))
            return [UsageRow(*row) for row in found]

    async def close(self) -> None:
        """Write what is left to write."""
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        await self._write()

    def _merge(self, place: Place, amount: Amount) -> None:
        requests, prompt, completion = self._pending.get(place, (0, 0, 0))
        self._pending[place] = (requests + amount[0], prompt + amount[1], completion + amount[2])

    async def _write_later(self) -> None:
        while self._pending:
            await asyncio.sleep(WRITE_SECONDS)
            # `close` may end this task in the middle of a write; it then waits for that write, by its lock.
            await asyncio.shield(asyncio.ensure_future(self._write()))

    async def _write(self) -> None:
        async with self._writing:
            await self._write_pending()

    async def _write_pending(self) -> None:
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            await asyncio.to_thread(self._store, [(*place, *amount) for place, amount in pending.items()])
        except Unavailable as error:
            for place, amount in pending.items():
                self._merge(place, amount)
            self._log.warning("jupyter-xinfer: usage is not written, and will be tried again: %s", error)

    def _store(self, rows: list[tuple[int, str, str, int, int, int]]) -> None:
        with self._open() as database:
            database.executemany(_ADD, rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self.path.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(sqlite3.connect(self.path, timeout=10)) as database, database:
                database.execute(_SCHEMA)
                yield database
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> Unavailable:
        return Unavailable("The usage ledger cannot be used.", place=f"{self.path}: {error}")
