"""Limits of callers, and the ledger of what they used."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jupyter_xinfer.auth.ledger import Ledger
from jupyter_xinfer.auth.limits import DAY, Limiter
from jupyter_xinfer.auth.meter import Meter
from jupyter_xinfer.auth.principal import Limits, Principal
from xinfer_runtime.errors import RateLimited
from xinfer_runtime.messages import Delta, Usage

LOG = logging.getLogger(__name__)


class Clock:
    now = 100.0 * DAY

    def __call__(self) -> float:
        return self.now


def caller(**limits: Any) -> Principal:
    return Principal(kind="api_key", name="ci", limits=Limits(**limits))


def refused(limiter: Limiter, who: Principal) -> float:
    """The seconds to wait that a refusal tells."""
    with pytest.raises(RateLimited) as caught:
        limiter.admit(who)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_without_limits_everything_is_admitted() -> None:
    limiter = Limiter(clock=Clock())
    for _ in range(1000):
        limiter.admit(caller())


def test_requests_per_minute_come_back_evenly() -> None:
    clock = Clock()
    limiter, who = Limiter(clock=clock), caller(requests_per_minute=6)
    for _ in range(6):
        limiter.admit(who)
    assert refused(limiter, who) == 10
    clock.now += 10
    limiter.admit(who)
    assert refused(limiter, who) == 10


def test_tokens_are_paid_for_afterwards() -> None:
    clock = Clock()
    limiter, who = Limiter(clock=clock), caller(tokens_per_minute=60)
    limiter.admit(who)
    limiter.charge(who, 180)
    assert refused(limiter, who) == 121
    clock.now += 121
    limiter.admit(who)


def test_a_request_that_ended_makes_room_for_another() -> None:
    limiter, who = Limiter(clock=Clock()), caller(concurrent_requests=1)
    limiter.admit(who)
    refused(limiter, who)
    limiter.release(who)
    limiter.admit(who)


def test_the_days_budget_counts_what_was_spent_before_a_restart_and_ends_at_midnight() -> None:
    clock = Clock()
    clock.now += 23 * 3600
    who = caller(tokens_per_day=100)
    limiter = Limiter({who.id: 90}, clock)
    limiter.admit(who)
    limiter.charge(who, 10)
    assert refused(limiter, who) == 3600
    clock.now += 3600
    limiter.admit(who)


def test_other_limits_for_a_name_hold_at_once_and_what_was_spent_stays() -> None:
    limiter = Limiter(clock=Clock())
    limiter.admit(caller(tokens_per_day=10, requests_per_minute=1))
    limiter.charge(caller(tokens_per_day=10, requests_per_minute=1), 10)
    limiter.admit(caller(tokens_per_day=11))
    refused(limiter, caller(tokens_per_day=10))


def test_callers_have_budgets_of_their_own() -> None:
    limiter = Limiter(clock=Clock())
    limiter.admit(caller(requests_per_minute=1))
    limiter.admit(Principal(kind="user", name="ci", limits=Limits(requests_per_minute=1)))


async def test_a_request_is_counted_and_its_use_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, LOG)
    meter, who = Meter(Limiter(clock=Clock()), ledger), caller(tokens_per_day=10)
    with meter.request(who, "m") as count:
        count.observe(Delta(id="r", token_ids=(1, 2)))
        count.observe(Delta(id="r", token_ids=(3,), finish_reason="stop", usage=Usage(7, 3)))
    with pytest.raises(RateLimited), meter.request(who, "m"):
        pass
    await meter.close()

    (row,) = Ledger(tmp_path, LOG).rows()
    assert (row.caller, row.model) == ("api_key:ci", "m")
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (1, 7, 3)
    assert ledger.path.stat().st_mode & 0o777 == 0o600


async def test_a_request_that_is_given_up_costs_what_was_computed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, LOG)
    meter, who = Meter(Limiter(clock=Clock()), ledger), caller(tokens_per_day=20)
    with suppress(RuntimeError), meter.request(who, "m") as count:
        count.begin(Delta(id="r", prompt_tokens=18))
        count.begin(Delta(id="r", prompt_tokens=18))  # At another replica, after the first was lost.
        count.observe(Delta(id="r", token_ids=(1, 2)))
        raise RuntimeError("the client went away")
    with pytest.raises(RateLimited), meter.request(who, "m"):
        pass
    await meter.close()

    (row,) = Ledger(tmp_path, LOG).rows()
    assert (row.prompt_tokens, row.completion_tokens) == (18, 2)


async def test_pieces_of_a_request_add_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, LOG)
    meter = Meter(Limiter(clock=Clock()), ledger)
    with meter.request(caller(), "m") as count:
        count.begin(Delta(id="r-0", prompt_tokens=5))
        count.begin(Delta(id="r-1", prompt_tokens=7))
        count.observe(Delta(id="r", usage=Usage(5, 0)))
        assert count.prompt_tokens == 12
        count.observe(Delta(id="r", usage=Usage(12, 0)))
    await meter.close()

    assert Ledger(tmp_path, LOG).rows()[0].prompt_tokens == 12


async def test_one_hour_is_one_row_over_several_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_xinfer.auth.ledger.time.time", lambda: 7200.5)
    for _ in range(3):
        ledger = Ledger(tmp_path, LOG)
        ledger.add("user:ann", "m", 10, 1)
        ledger.add("user:ann", "m", 10, 1)
        await ledger.close()

    (row,) = Ledger(tmp_path, LOG).rows()
    assert (row.hour, row.requests, row.prompt_tokens, row.completion_tokens) == (7200, 6, 60, 6)


async def test_what_cannot_be_written_now_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path, LOG)
    ledger.path.mkdir(parents=True)
    ledger.add("user:ann", "m", 10, 1)
    await ledger.close()
    assert "usage is not written" in caplog.text
    ledger.path.rmdir()
    await ledger.close()
    assert ledger.rows()[0].prompt_tokens == 10
