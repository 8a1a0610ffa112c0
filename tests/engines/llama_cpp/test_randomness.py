"""The counter-based random numbers."""

from collections import Counter

from xinfer_runtime.engines.llama_cpp.randomness import uniform


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    assert uniform(7, 1000) == uniform(7, 1000)
    assert len({uniform(seed, n) for seed in range(50) for n in range(50)}) == 2500


def test_draws_are_uniform() -> None:
    draws = 20_000
    counts = Counter(int(uniform(42, n) * 20) for n in range(draws))
    expected = draws / 20
    chi_square = sum((counts[cell] - expected) ** 2 / expected for cell in range(20))
    assert chi_square < 43.8  # 99.9th percentile with 19 degrees of freedom.


def test_negative_and_huge_seeds_are_seeds() -> None:
    assert 0 <= uniform(-1, 0) < 1
    assert uniform(3, 5) == uniform(3 + 2**64, 5)
