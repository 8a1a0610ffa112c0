"""Ranks and draws: against the plain way of doing it."""

import llama_cpp  # noqa: F401
import numpy as np
import pytest

from xinfer_runtime.engines.llama_cpp.ranking import largest, nucleus, pick

RNG = np.random.default_rng(3)
ROWS = {
    "small": RNG.standard_normal(7).astype(np.float32),
    "flat": np.zeros(5000, dtype=np.float32),
    "two levels": np.repeat(np.float32([0, -1]), 1500),
    "nearly flat": (RNG.standard_normal(20_000) * 0.1).astype(np.float32),
    "peaked": (RNG.standard_normal(20_000) * 9).astype(np.float32),
    "ruled out": np.where(np.arange(3000) % 7, -np.inf, RNG.standard_normal(3000)).astype(np.float32),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("count", [1, 5, 7])
def test_the_largest_come_first_and_ties_in_order(name: str, count: int) -> None:
    row = ROWS[name]
    assert largest(row, count)[0] == np.argmax(row)
    assert row[largest(row, count)].tolist() == np.sort(row)[::-1][:count].tolist()


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("mass", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_a_nucleus_is_the_smallest_set_with_the_mass(name: str, mass: float) -> None:
    row = ROWS[name]
    inside = nucleus(row, mass)
    weights = np.exp(row.astype(np.float64) - row.max())
    total = weights.sum()
    assert len(set(inside.tolist())) == len(inside) >= 1
    assert weights[inside].sum() >= (mass - 1e-6) * total
    without_the_least = weights[inside].sum() - weights[inside].min()
    assert without_the_least <= mass * total * (1 + 1e-6)
    assert np.delete(weights, inside).max(initial=0) <= weights[inside].min()


@pytest.mark.parametrize("name", ROWS)
def test_a_pick_is_the_inverse_of_the_running_sum(name: str) -> None:
    weights = np.exp(ROWS[name] - ROWS[name].max())
    sums = np.cumsum(weights, dtype=np.float64)
    for point in RNG.random(200).tolist():
        index = pick(weights, point)
        before = sums[index - 1] if index else 0.0
        assert before - 1e-6 * sums[-1] <= point * sums[-1] <= sums[index] + 1e-6 * sums[-1]
        assert weights[index] > 0


@pytest.mark.parametrize("size", [3, 2000])
def test_a_point_at_the_very_end_never_picks_a_token_without_weight(size: int) -> None:
    weights = np.zeros(size, dtype=np.float32)
    weights[1] = 1.0
    assert [pick(weights, point) for point in (0.0, 0.5, 1.0 - 2**-53, 1.0)] == [1, 1, 1, 1]
