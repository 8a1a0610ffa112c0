"""How long prompts wait for each other on a GPU, where a pass costs nearly the same whatever its length. No I/O."""

from collections.abc import Sequence

_STILL = 3
"""Steps without another prompt after which those that wait are taken to be all: requests that were computed together
end together, and their callers come back together."""

_WORTH_A_PASS = 16
"""Where more than so many decode for each prompt, it waits for others all the same."""


class PromptPatience:
    """Prompts wait for as many steps as sequences decode, divided by `patience` (0: for none); or until they fill half
    of the `token_budget` of a step; or until no more have come for some steps, if they are not too few for a pass.
    """

    def __init__(self, patience: int, token_budget: int) -> None:
        self._patience = patience
        self._token_budget = token_budget
        self._steps = self._still = self._prompts = 0

    def holds_back(self, uncomputed: Sequence[int], decoding: int) -> bool:
        """Whether prompts that lack so many tokens each shall wait in the next step, in which so many decode."""
        if not self._patience or not uncomputed:
            self._start_anew()
            return False
        self._still = self._still + 1 if len(uncomputed) == self._prompts else 0
        self._prompts = len(uncomputed)
        waited_enough = self._steps >= decoding // self._patience
        all_here = self._still >= _STILL and self._prompts * _WORTH_A_PASS >= decoding
        if waited_enough or all_here or 2 * sum(uncomputed) >= self._token_budget:
            self._start_anew()
            return False
        self._steps += 1
        return True

    def _start_anew(self) -> None:
        self._steps = self._still = self._prompts = 0
