"""What each caller may use, and whether one more request fits: buckets and counters, no I/O.

Requests and tokens per minute are buckets that hold a minute's worth and fill evenly. A request's tokens are known only
when they have been computed, so the bucket of tokens may sink below zero, and the caller waits until it is above again.
"""

import math
import time
from collections.abc import Callable, Mapping

from jupyter_xinfer.auth.principal import UNLIMITED, Limits, Principal
from xinfer_runtime.errors import RateLimited

DAY = 86_400


class _Bucket:
    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self.level = float(per_minute)
        self._filled = now

    def fill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + max(0.0, now - self._filled) * self.per_minute / 60)
        self._filled = now

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) * 60 / self.per_minute)


class _Account:
    """One caller's use."""

    def __init__(self, limits: Limits, spent_today: int, now: float) -> None:
        self.limits = limits
        self.running = 0
        self.day = int(now // DAY)
        self.spent_today = spent_today
        self.requests = _Bucket(limits.requests_per_minute or 0, now)
        self.tokens = _Bucket(limits.tokens_per_minute or 0, now)

    def charge(self, tokens: int, now: float) -> None:
        self._turn_the_day(now)
        self.spent_today += tokens
        self.tokens.level -= tokens

    def admit(self, name: str, now: float) -> None:
        """Count one more running request, or raise `RateLimited` and count nothing."""
        self._turn_the_day(now)
        limits = self.limits
        if limits.concurrent_requests is not None and self.running >= limits.concurrent_requests:
            raise _refusal(name, f"{limits.concurrent_requests} requests at a time", 1)
        if limits.tokens_per_day is not None and self.spent_today >= limits.tokens_per_day:
            raise _refusal(name, f"{limits.tokens_per_day} tokens a day", (self.day + 1) * DAY - now)
        if limits.tokens_per_minute is not None:
            self.tokens.fill(now)
            if self.tokens.level <= 0:
                raise _refusal(name, f"{limits.tokens_per_minute} tokens a minute", self.tokens.seconds_until(1))
        if limits.requests_per_minute is not None:
            self.requests.fill(now)
            if self.requests.level < 1:
                raise _refusal(name, f"{limits.requests_per_minute} requests a minute", self.requests.seconds_until(1))
            self.requests.level -= 1
        self.running += 1

    def _turn_the_day(self, now: float) -> None:
        day = int(now // DAY)
        if day != self.day:
            self.day, self.spent_today = day, 0


class Limiter:
    """`spent_today` has the tokens of the day so far by caller, from before this process began."""

    def __init__(self, spent_today: Mapping[str, int] | None = None, clock: Callable[[], float] = time.time) -> None:
        self._spent_before = dict(spent_today or {})
        self._started_on = int(clock() // DAY)
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def admit(self, caller: Principal) -> None:
        """Count a request of this caller as running. Raises `RateLimited` with the seconds to wait."""
        if caller.limits != UNLIMITED:
            self._account(caller).admit(caller.name, self._clock())

    def charge(self, caller: Principal, tokens: int) -> None:
        if caller.limits != UNLIMITED:
            self._account(caller).charge(tokens, self._clock())

    def release(self, caller: Principal) -> None:
        """The request that `admit` counted is over."""
        if caller.limits != UNLIMITED:
            self._account(caller).running -= 1

    def _account(self, caller: Principal) -> _Account:
        account = self._accounts.get(caller.id)
        if account is None or account.limits != caller.limits:
            # New, or a name that was given to a key with other limits.
            now = self._clock()
            before = self._spent_before.pop(caller.id, 0) if int(now // DAY) == self._started_on else 0
            spent, running = (account.spent_today, account.running) if account is not None else (before, 0)
            account = self._accounts[caller.id] = _Account(caller.limits, spent, now)
            account.running = running
        return account


def _refusal(name: str, limit: str, seconds: float) -> RateLimited:
    wait = max(1, math.ceil(seconds))
    return RateLimited(f"{name!r} is limited to {limit}. Try again in {wait} s.", retry_after=wait)
