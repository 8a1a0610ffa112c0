"""Slows down the guessing of passwords, without locking anybody out who shares an address or a name with the guesser.

Only an account and an address together are ever refused: after `FREE` failures for 1, 2, 4 ... up to `LONGEST` seconds
after the last one. Many failures of one address (over accounts) or for one account (over addresses) make each further
attempt wait a little before it is answered, which nobody notices who types. All counts fade, and memory is bounded.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from jupyter_xinfer.auth.api_key import digest

FREE = 5
LONGEST = 60.0
SLOW_AFTER = 20
SLOWEST = 2.0
FORGET_SECONDS = 900.0
MAX_ENTRIES = 10_000

K = TypeVar("K")
Pair = tuple[bytes, str]


class LoginThrottle:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pairs: _Failures[Pair] = _Failures()
        self._accounts: _Failures[bytes] = _Failures()
        self._addresses: _Failures[str] = _Failures()

    def refused_for(self, account: str, address: str) -> float:
        """Seconds for which this account cannot log in from this address; 0 lets the attempt happen."""
        count, last = self._pairs.get((digest(account), address), self._clock())
        if count < FREE:
            return 0.0
        return max(0.0, last + min(LONGEST, 2.0 ** min(count - FREE, 30)) - self._clock())

    def delay(self, account: str, address: str) -> float:
        """Seconds to wait before this attempt is answered."""
        now = self._clock()
        count = max(self._accounts.get(digest(account), now)[0], self._addresses.get(address, now)[0])
        return min(SLOWEST, 0.05 * max(0, count - SLOW_AFTER))

    def attempted(self, account: str, address: str) -> None:
        """Count an attempt as failed, before it is checked: many at once must not all find a count of zero."""
        now, name = self._clock(), digest(account)
        self._pairs.add((name, address), now)
        self._accounts.add(name, now)
        self._addresses.add(address, now)

    def succeeded(self, account: str, address: str) -> None:
        name = digest(account)
        self._pairs.forget((name, address))
        self._accounts.take_back(name)
        self._addresses.take_back(address)


class _Failures(Generic[K]):
    """Counts of failures by key with the time of the last one, the least recent forgotten first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, tuple[int, float]] = OrderedDict()

    def get(self, key: K, now: float) -> tuple[int, float]:
        count, last = self._entries.get(key, (0, now))
        return (0, now) if now - last > FORGET_SECONDS else (count, last)

    def add(self, key: K, now: float) -> None:
        self._entries[key] = (self.get(key, now)[0] + 1, now)
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)

    def take_back(self, key: K) -> None:
        count, last = self._entries.get(key, (0, 0.0))
        if count > 0:
            self._entries[key] = (count - 1, last)
