"""Failed logins: who is slowed down, and who is not."""

from jupyter_xinfer.auth import throttle
from jupyter_xinfer.auth.throttle import FREE, LoginThrottle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(guard: LoginThrottle, times: int, account: str = "ann", address: str = "10.0.0.1") -> None:
    for _ in range(times):
        guard.attempted(account, address)


def test_a_few_mistakes_cost_nothing() -> None:
    guard = LoginThrottle(Clock())
    fail(guard, FREE - 1)
    assert guard.refused_for("ann", "10.0.0.1") == 0


def test_each_further_failure_doubles_the_wait_up_to_a_minute() -> None:
    clock = Clock()
    guard = LoginThrottle(clock)
    fail(guard, FREE)
    assert guard.refused_for("ann", "10.0.0.1") == 1
    fail(guard, 2)
    assert guard.refused_for("ann", "10.0.0.1") == 4
    fail(guard, 50)
    assert guard.refused_for("ann", "10.0.0.1") == 60
    clock.now += 60
    assert guard.refused_for("ann", "10.0.0.1") == 0


def test_others_behind_the_same_address_and_the_account_elsewhere_get_in() -> None:
    guard = LoginThrottle(Clock())
    fail(guard, 1000)
    assert guard.refused_for("bob", "10.0.0.1") == 0
    assert guard.refused_for("ann", "10.0.0.2") == 0


def test_many_failures_over_accounts_or_addresses_slow_answers_down() -> None:
    guard = LoginThrottle(Clock())
    for number in range(200):
        guard.attempted(f"user {number}", "10.0.0.1")
        guard.attempted("ann", f"10.0.1.{number}")
    assert guard.delay("somebody", "10.0.0.1") == throttle.SLOWEST
    assert guard.delay("ann", "10.9.9.9") == throttle.SLOWEST
    assert guard.delay("somebody", "10.9.9.9") == 0


def test_success_forgets_and_so_does_time() -> None:
    clock = Clock()
    guard = LoginThrottle(clock)
    fail(guard, 10)
    guard.succeeded("ann", "10.0.0.1")
    assert guard.refused_for("ann", "10.0.0.1") == 0
    fail(guard, 100)
    clock.now += throttle.FORGET_SECONDS + 1
    assert guard.delay("ann", "10.0.0.1") == 0


def test_memory_is_bounded() -> None:
    guard = LoginThrottle(Clock())
    for number in range(throttle.MAX_ENTRIES + 500):
        guard.attempted(f"user {number}", f"address {number}")
    assert len(guard._pairs._entries) == throttle.MAX_ENTRIES
