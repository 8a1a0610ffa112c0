"""How the tokens of a step are divided among forward passes."""

from collections.abc import Sequence

ATTENTION_TILE = 64
"""From so many tokens in a pass on, llama.cpp's flash attention on CPUs works in tiles. A tile skips cells only if none
of its tokens attends to them: good for a prompt, but for tokens of many sequences it goes over everybody's cells."""


def in_passes(lengths: Sequence[int], tile: int | None, split: bool = False) -> list[list[int]]:
    """The indexes of the chunks of each pass, for chunks of so many tokens; one pass where nothing speaks against it.

    With a tile, chunks of one token share passes smaller than it, evenly; the longer ones, which are prompts, have one
    of their own. With 64 sequences of 256 tokens, 64 tokens take 40 ms instead of 124 ms, and 63 beside 64 of a prompt
    52 ms instead of 144 ms (the demo model on one core).

    In a split cache llama.cpp computes together only equally many tokens of each sequence, and would cut a mixture into
    more passes than chunks of each length in their own; a pass of one token each also has the same shape as the step
    before, which saves a GPU the preparation.
    """
    if split:
        by_length: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            by_length.setdefault(length, []).append(index)
        return [by_length[length] for length in sorted(by_length)]
    if tile is None or sum(lengths) < tile:
        return [list(range(len(lengths)))]
    single = [index for index, length in enumerate(lengths) if length == 1]
    longer = [index for index, length in enumerate(lengths) if length > 1]
    groups = -(-len(single) // (tile - 1))
    passes = [single[group::groups] for group in range(groups)]
    return [*passes, longer] if longer else passes


_PATIENCE = 32
"""Passes that are wider than they need to be before one is narrowed. A GPU computes 16 rows in the time of 64, and
what it has prepared for another width is worth five passes."""


class SteadyWidth:
    """Of how many sequences a pass over one token each is made, so that it changes seldom while sequences come and go.

    As long as it stays the same, a GPU uses what it has prepared before.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._width = 0
        self._wider = 0

    def of(self, sequences: int) -> int:
        """The width of the next pass, in which so many sequences are, or soon will be."""
        needed = max(min(_rounded(sequences), self._most), sequences)
        self._wider = self._wider + 1 if needed < self._width else 0
        if needed > self._width or self._wider > _PATIENCE:
            self._width, self._wider = needed, 0
        return self._width


def _rounded(sequences: int) -> int:
    """Up to a power of two, or to three quarters of one."""
    power: int = 1 << max(sequences - 1, 0).bit_length()
    return 3 * power // 4 if power >= 8 and sequences <= 3 * power // 4 else power
