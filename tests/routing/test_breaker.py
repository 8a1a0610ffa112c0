from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.routing.breaker import LONGEST_PAUSE, PROBE_SECONDS, WINDOW, Breaker


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.failed(now)
    breaker.failed(now + 1)
    return breaker


def test_one_failure_is_forgiven_and_two_are_not() -> None:
    breaker = Breaker()
    breaker.failed(0.0)
    assert breaker.admits(0.0)
    breaker.failed(1.0)
    assert not breaker.admits(1.0)


def test_requests_that_fail_together_are_one_failure() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.failed(5.0)
    assert breaker.admits(5.0)


def test_failures_far_apart_do_not_add_up() -> None:
    breaker = Breaker()
    breaker.failed(0.0)
    breaker.failed(WINDOW + 1)
    assert breaker.admits(WINDOW + 1)


def test_after_the_pause_one_probe_at_a_time_goes_there() -> None:
    breaker = opened()
    assert breaker.admits(2.0)
    breaker.sent(2.0)
    assert not breaker.admits(2.1)
    assert breaker.admits(2.0 + PROBE_SECONDS), "the probe was never heard of again"


def test_a_probe_that_is_answered_makes_it_as_good_as_any() -> None:
    breaker = opened()
    breaker.sent(2.0)
    breaker.succeeded()
    assert breaker.admits(2.1)
    breaker.failed(3.0)
    assert breaker.admits(3.0)


def test_a_probe_that_fails_doubles_the_pause() -> None:
    breaker = opened()
    breaker.sent(2.0)
    breaker.failed(2.1)
    assert not breaker.admits(4.0)
    assert breaker.admits(4.2)


@given(st.lists(st.floats(0.0, 100.0), max_size=30))
def test_it_is_probed_again_however_often_it_failed(gaps: list[float]) -> None:
    breaker, now = Breaker(), 0.0
    for gap in gaps:
        now += gap
        breaker.sent(now)
        breaker.failed(now)
    assert breaker.admits(now + LONGEST_PAUSE)
