"""How many replicas follow from the load: pure arithmetic over time."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.cluster.demand import DOWN_SECONDS, FORGET_SECONDS, UP_SECONDS, Limits, ModelDemand
from xinfer_runtime.cluster.protocol import Demand

LIMITS = Limits(least=1, most=8, target=2.0)


class Load:
    """A model whose replicas follow the load, second by second."""

    def __init__(self, count: int = 1, limits: Limits = LIMITS) -> None:
        self.demand = ModelDemand(0.0)
        self.count = count
        self.limits = limits
        self.now = 0.0

    def run(self, seconds: float, waited: float, requests: int = 4, starting: bool = False) -> list[int]:
        counts = []
        for _ in range(int(seconds)):
            self.now += 1
            self.demand.seen("g", Demand(uid="m", requests=requests, waited=waited), self.now)
            self.count = self.demand.replicas(self.count, self.limits, self.now, starting=starting)
            counts.append(self.count)
        return counts


def test_a_burst_changes_nothing_and_a_queue_adds_a_replica() -> None:
    load = Load()
    assert set(load.run(UP_SECONDS, waited=3.0)) == {1}
    load.run(1, waited=0.1)
    assert set(load.run(UP_SECONDS, waited=3.0)) == {1}
    assert load.run(1, waited=3.0) == [2]


def test_a_long_queue_doubles_them_up_to_the_most() -> None:
    load = Load(count=3)
    assert load.run(60, waited=30.0)[-1] == 8
    assert 6 in load.run(1, waited=30.0) or load.count == 8


def test_nothing_is_added_while_one_is_starting() -> None:
    assert set(Load().run(100, waited=30.0, starting=True)) == {1}


def test_slack_takes_one_away_after_a_while() -> None:
    load = Load(count=3)
    assert set(load.run(DOWN_SECONDS, waited=0.1)) == {3}
    assert load.run(1, waited=0.1) == [2]
    load.run(10 * DOWN_SECONDS, waited=0.1)
    assert load.count == 1


def test_one_that_was_missed_at_once_is_taken_away_less_readily() -> None:
    load = Load(count=2)
    load.run(DOWN_SECONDS + 1, waited=0.1)
    assert load.count == 1
    load.run(UP_SECONDS + 1, waited=3.0)
    assert load.count == 2
    assert set(load.run(2 * DOWN_SECONDS - 1, waited=0.1)) == {2}
    load.run(3, waited=0.1)
    assert load.count == 1


def test_limits_hold_at_once() -> None:
    assert Load(count=1, limits=Limits(3, 5, 2.0)).run(1, waited=0.1) == [3]
    assert Load(count=9, limits=Limits(3, 5, 2.0)).run(1, waited=9.0) == [5]


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 9), st.booleans()), max_size=300),
    st.integers(1, 4),
    st.integers(0, 4),
)
def test_the_number_stays_within_limits_and_does_not_flap(
    seconds: list[tuple[float, int, bool]], least: int, more: int
) -> None:
    load = Load(count=least, limits=Limits(least, least + more, 2.0))
    changes: list[tuple[float, int]] = []
    for waited, requests, starting in seconds:
        before = load.count
        (after,) = load.run(1, waited, requests, starting)
        assert least <= after <= least + more
        if after != before:
            changes.append((load.now, after - before))
    for (earlier, _), (later, step) in pairwise(changes):
        assert later - earlier >= (UP_SECONDS if step > 0 else DOWN_SECONDS)


def test_gateways_add_up_and_one_that_is_gone_is_forgotten() -> None:
    demand = ModelDemand(0.0)
    demand.seen("a", Demand(uid="m", requests=2, waited=1.0), 10.0)
    demand.seen("b", Demand(uid="m", requests=1, waited=5.0), 11.0)
    assert (demand.requests(12.0), demand.waited(12.0)) == (3, 5.0)
    assert demand.idle_seconds(12.0) == 0.0
    demand.seen("a", Demand(uid="m", requests=0), 12.0)
    assert demand.requests(11.5 + FORGET_SECONDS) == 0
    assert demand.idle_seconds(11.5 + FORGET_SECONDS) == 0.5 + FORGET_SECONDS
