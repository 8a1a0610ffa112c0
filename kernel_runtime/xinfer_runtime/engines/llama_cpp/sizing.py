"""How large a KV cache a model gets: arithmetic shared by the memory forecast and the engine, so that both agree.

A *cell* holds the keys and values of one token in every layer. Where there is room for every sequence at full length,
each has cells of its own (a split cache, see `streams`). Else cells are shared by all sequences (llama.cpp's unified
cache), so a replica can hold one long conversation or many short ones.
"""

from dataclasses import dataclass, replace
from typing import Literal

CacheType = Literal["f16", "q8_0", "q4_0"]
"""How keys or values are stored."""

DEFAULT_CONTEXT_LENGTH = 8192
"""Tokens per sequence when nobody said, nor the file: enough for a conversation. What each sequence can have for itself
is weighed with no more either."""

DEFAULT_MAX_SEQUENCES = 64
"""Sequences that run at once: so many clients get their first token at once. In a unified cache a CPU goes over every
sequence's cells for each sequence, so a launch for throughput on CPUs asks for fewer; see docs/engines/llama-cpp.md."""

CPU_TOKEN_BUDGET = 512
"""Tokens in one step. While some decode, it has fewer tokens of prompts (`prompt_share.py`)."""

GPU_TOKEN_BUDGET = 2048
"""A GPU prepares a pass over a prompt for as long as it computes it: with 0.5 B parameters on an H200, 128 tokens took
7 ms, 512 tokens 9 ms, 1,024 tokens 11 ms and 2,048 tokens 17 ms."""

GPU_PATIENCE = 4
"""A prompt costs everybody else a pass, and two more until llama.cpp has prepared the GPU for decoding again, so that
prompts wait for each other: with 64 sequences that decode for 16 steps, with up to three for none."""

CPU_RETAINED_CELLS = 8192
"""Cells kept for later requests at most, on CPUs: a pass goes over the cells of all sequences, if only to skip them.
8,000 cells that nobody needs make a step of the demo model 0.1 ms (one request) to 1.2 ms (16) longer."""

WORTH_COPYING = 16
"""Tokens of a common prefix from which on a split cache copies it: a copy moves a sequence's cells, used or not."""

WORTH_RESTORING = 64
"""Tokens from which on a prefix is saved in host memory, and brought back."""

WORTH_MOVING = 16
"""Tokens from which on a sequence that goes to another replica takes along what was computed: fewer are computed again
before a connection is made."""

COPIED_BYTES = 64 << 20
"""Bytes of cells after which a step saves no more prefixes, or restores no more, since decoding waits for them."""

KEPT_BYTES = 256 << 20
"""Prefixes that are written to disk at most when a model is unloaded."""

_RETAINED_SEQUENCES = 8, 64
"""So many ended requests can be kept, at least and at most. llama.cpp keeps room for a row of logits for each."""

IMAGE_PIXELS = 32_000_000
"""Of an image, at most."""

IMAGE_PIXEL_BYTES = 6 * IMAGE_PIXELS
"""While it becomes what the model takes: three colours, twice."""

IMAGE_ROWS_BYTES = 128 << 20
"""What the model takes in place of images, of all requests that have some and of images that were seen last. A request
that has more of its own goes alone."""

DRAFT_ROWS = 64
"""Guessed tokens in one pass at most, with speculation. llama.cpp keeps room for a row of logits for each."""

DRAFT_TOKEN_BUDGET = 512
"""Tokens in one pass of a draft model, which delays everybody's step while it takes in a prompt."""

DRAFT_AT_ONCE = 4
"""Tokens of a sequence that a draft model may lack when it guesses; more are computed before, in large passes."""

MOST_KV_SEQUENCES = 256
"""llama.cpp knows no more in one context."""

_CELL_TARGET = 32768
_BYTES_TARGET = 2 << 30
_BLOCKS: dict[CacheType, tuple[int, int]] = {"f16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18)}
"""Elements and bytes of a block."""

_CELL_ALIGNMENT = 256
"""llama.cpp rounds the context up to this."""


@dataclass(frozen=True)
class CacheShape:
    """What one cell costs: the number of K and of V elements per token, summed over the layers, and their types."""

    keys: int
    values: int
    key_type: CacheType = "f16"
    value_type: CacheType = "f16"

    @property
    def bytes_per_cell(self) -> int:
        return _bytes(self.keys, self.key_type) + _bytes(self.values, self.value_type)


@dataclass(frozen=True)
class CacheSize:
    """`context_length` tokens at most in one sequence, `cells` in all sequences together, `split` among them or not."""

    context_length: int
    max_sequences: int
    cells: int
    split: bool = False

    def shared(self) -> "CacheSize":
        """As much room, for all sequences together."""
        return replace(self, cells=self.usable_cells, split=False)

    @property
    def usable_cells(self) -> int:
        """Cells without those of the stream that a split cache has besides those of the sequences."""
        return self.cells - self.attended_cells if self.split else self.cells

    @property
    def attended_cells(self) -> int:
        """Cells that the attention of one token may have to go over."""
        return self.cells // (self.max_sequences + 1) if self.split else self.cells


def choose(
    shape: CacheShape, trained_context: int, context_length: int | None = None, max_sequences: int | None = None
) -> CacheSize:
    """The cache for a model trained on `trained_context` tokens (0 where that is unknown), for what the launch asked
    for, None where it did not.

    Room for every sequence at full length, but no more than 32,768 cells or 2 GiB, and never less than one full
    sequence. Where sequences share all cells and the launch does not say how long one may be, it may have all of them,
    up to what the model was trained for.
    """
    length = context_length or min(trained_context or DEFAULT_CONTEXT_LENGTH, DEFAULT_CONTEXT_LENGTH)
    sequences = max_sequences or DEFAULT_MAX_SEQUENCES
    affordable = min(_CELL_TARGET, _BYTES_TARGET // max(shape.bytes_per_cell, 1))
    stream = _aligned(length)
    if 1 < sequences < MOST_KV_SEQUENCES and sequences * stream <= affordable:
        return CacheSize(length, sequences, (sequences + 1) * stream, split=True)
    cells = _aligned(max(length, min(sequences * (context_length or trained_context or length), affordable)))
    if context_length is None:
        length = max(length, min(trained_context, cells))
    return CacheSize(length, sequences, cells)


def block_elements(cache_type: CacheType) -> int:
    """Elements that are stored together; a head's keys or values must be a multiple."""
    return _BLOCKS[cache_type][0]


def _bytes(elements: int, cache_type: CacheType) -> int:
    block, size = _BLOCKS[cache_type]
    return -(-elements // block) * size


def _aligned(cells: int) -> int:
    return -(-cells // _CELL_ALIGNMENT) * _CELL_ALIGNMENT


def kv_sequences(max_sequences: int, sharing: bool, split: bool = False) -> int:
    """How many sequences the KV cache has: those that run, and as many more as ended requests may be kept.

    In a split cache only those that run: each more would cost as many cells as it may have tokens.
    """
    if not sharing or split:
        return max_sequences
    least, most = _RETAINED_SEQUENCES
    wanted = max_sequences + min(max(max_sequences, least), most)
    # A power of two: llama.cpp makes room for passes of a multiple of this many tokens.
    return max(max_sequences, min(1 << (wanted - 1).bit_length(), MOST_KV_SEQUENCES))


def retained_cells(cells: int, on_gpu: bool, sharing: bool, split: bool = False) -> int | None:
    """How many cells that nobody needs are kept for later requests, None where prefixes are not shared."""
    if not sharing:
        return None
    return cells if on_gpu or split else min(cells, CPU_RETAINED_CELLS)


def draft_token_budget(max_sequences: int) -> int:
    """Tokens in one pass of a draft model at most."""
    return max(DRAFT_TOKEN_BUDGET, max_sequences * DRAFT_AT_ONCE)
