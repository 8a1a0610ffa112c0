"""How long prompts wait for each other."""

from xinfer_runtime.engines.llama_cpp.prompt_patience import PromptPatience


def steps_held(patience: PromptPatience, prompts: list[int], decoding: int) -> int:
    """For how many steps these prompts wait when no other comes."""
    return next(steps for steps in range(1000) if not patience.holds_back(prompts, decoding))


def test_few_prompts_wait_the_longer_the_more_decode() -> None:
    assert steps_held(PromptPatience(4, 2048), [100], 60) == 15
    assert steps_held(PromptPatience(4, 2048), [100], 20) == 5
    assert steps_held(PromptPatience(4, 2048), [100], 3) == 0


def test_without_patience_or_without_others_nobody_waits() -> None:
    assert steps_held(PromptPatience(0, 2048), [100], 60) == 0
    assert steps_held(PromptPatience(4, 2048), [100], 0) == 0


def test_what_fills_half_of_a_step_waits_for_no_more() -> None:
    assert steps_held(PromptPatience(4, 2048), [1024], 60) == 0


def test_a_group_goes_when_no_more_of_it_come() -> None:
    patience = PromptPatience(4, 2048)
    assert patience.holds_back([100] * 2, 60)
    assert patience.holds_back([100] * 5, 60)
    assert steps_held(patience, [100] * 5, 60) == 2


def test_a_new_group_waits_as_the_one_before() -> None:
    patience = PromptPatience(4, 2048)
    assert steps_held(patience, [100] * 5, 60) == 3
    assert steps_held(patience, [100] * 5, 60) == 3
    assert not patience.holds_back([], 60)
    assert steps_held(patience, [100] * 5, 60) == 3
