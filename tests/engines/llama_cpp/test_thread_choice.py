"""How many threads a pass gets."""

from collections import Counter

import pytest

from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice


def run(
    choice: ThreadChoice, seconds: dict[int, float], passes: int, tokens: int = 64, got: float = 1.0
) -> Counter[int]:
    """Passes that take so long with so many threads, which have a core for this part of the time. Returns how many had
    how many threads."""
    used: Counter[int] = Counter()
    for _ in range(passes):
        threads = choice.threads(tokens)
        choice.observe(tokens, threads, seconds[threads], got * threads * seconds[threads])
        used[threads] += 1
    return used


def test_a_small_pass_always_gets_the_same() -> None:
    choice = ThreadChoice(1, 4)
    assert run(choice, {1: 1.0, 4: 0.1}, 100, tokens=7) == {1: 100}


def test_large_passes_get_all_cores_where_that_is_faster() -> None:
    used = run(ThreadChoice(1, 4), {1: 1.0, 4: 0.3}, 200)
    assert used[4] > 190


def test_and_few_where_the_cores_have_other_things_to_do() -> None:
    used = run(ThreadChoice(1, 4), {1: 1.0, 4: 3.0}, 200)
    assert used[1] > 190


def test_the_choice_follows_the_load_of_the_machine() -> None:
    choice = ThreadChoice(1, 4)
    run(choice, {1: 1.0, 4: 3.0}, 100)
    run(choice, {1: 1.0, 4: 0.3}, 500)
    assert run(choice, {1: 1.0, 4: 0.3}, 200)[4] > 190


def test_one_pass_that_had_to_wait_does_not_decide() -> None:
    choice = ThreadChoice(1, 4)
    run(choice, {1: 1.0, 4: 0.3}, 20)
    choice.observe(64, 4, 100.0, 10.0)
    assert run(choice, {1: 1.0, 4: 0.3}, 40)[4] > 35


def test_sizes_are_measured_apart() -> None:
    choice = ThreadChoice(1, 4)
    run(choice, {1: 1.0, 4: 3.0}, 20, tokens=8)
    assert run(choice, {1: 1.0, 4: 0.3}, 20, tokens=128)[4] > 15


def test_a_launch_that_names_a_number_gets_it() -> None:
    choice = ThreadChoice(3, fixed=True)
    assert run(choice, {3: 1.0}, 10) == run(choice, {3: 50.0}, 10) == {3: 10}


def test_every_number_is_tried_again_and_again() -> None:
    choice = ThreadChoice(1, 15, 16)
    used = run(choice, {1: 1.0, 15: 0.3, 16: 0.4}, 500)
    assert used[15] > 460
    assert min(used[1], used[16]) > 3


@pytest.mark.parametrize("tokens", [1, 64])
def test_crowded_cores_get_fewer_threads_until_they_are_free(tokens: int) -> None:
    choice = ThreadChoice(4)
    free = {4: 0.01, 2: 0.02, 1: 0.04}
    assert run(choice, free, 100, tokens) == {4: 100}
    crowded = {4: 0.5, 2: 0.2, 1: 0.08}
    assert run(choice, crowded, 300, tokens, got=0.5)[1] > 280
    assert run(choice, free, 1500, tokens)[4] > 600
    assert run(choice, free, 100, tokens) == {4: 100}
