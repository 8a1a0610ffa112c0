"""Dividing the cores of a node."""

from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.cluster.core_shares import core_shares


def test_equal_replicas_get_equal_shares() -> None:
    assert core_shares(12, {1: 12, 2: 12, 3: 12}) == {1: 4, 2: 4, 3: 4}


def test_what_cannot_be_divided_goes_to_the_first() -> None:
    assert core_shares(8, {5: 8, 3: 8, 9: 8}) == {3: 3, 5: 3, 9: 2}


def test_what_a_small_model_leaves_goes_to_the_others() -> None:
    assert core_shares(8, {1: 1, 2: 8, 3: 8}) == {1: 1, 2: 4, 3: 3}
    assert core_shares(8, {1: 8}) == {1: 8}


def test_everybody_gets_a_core_where_there_are_too_few() -> None:
    assert core_shares(2, {1: 2, 2: 2, 3: 2}) == {1: 1, 2: 1, 3: 1}


def test_no_replica_no_share() -> None:
    assert core_shares(4, {}) == {}


@given(cores=st.integers(1, 200), wants=st.dictionaries(st.integers(0, 50), st.integers(1, 64), max_size=20))
def test_shares_are_fair_and_no_more_than_there_is(cores: int, wants: dict[int, int]) -> None:
    shares = core_shares(cores, wants)
    assert shares.keys() == wants.keys()
    assert all(1 <= shares[key] <= max(wants[key], 1) for key in wants)
    assert sum(shares.values()) <= max(cores, len(wants))
    if sum(shares.values()) < cores:
        assert shares == wants  # Nobody could use more.
    for mine in wants:
        for theirs in wants:
            # Who has less than another by more than the rounding can use no more.
            assert shares[mine] >= shares[theirs] - 1 or shares[mine] == wants[mine]
