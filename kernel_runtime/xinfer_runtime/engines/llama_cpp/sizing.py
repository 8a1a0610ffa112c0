"""How large a KV cache a model gets: arithmetic shared by the memory forecast and the engine, so that both agree.

A *cell* holds the keys and values of one token in every layer. Cells are shared by all sequences (llama.cpp's unified
cache), so a replica can hold one long conversation or many short ones.
"""

from dataclasses import dataclass

DEFAULT_CONTEXT_LENGTH = 8192
"""Tokens per sequence when nobody said: enough for a conversation, far from the 128 k that many files announce."""

DEFAULT_MAX_SEQUENCES = 64
"""Sequences that run at once: so many clients get their first token at once. In a unified cache a CPU goes over every
sequence's cells for each sequence, so a launch for throughput on CPUs asks for fewer: 64 clients of the demo model got
6,700 tokens/s with 16 at once and 1,900 with 64."""

GPU_TOKEN_BUDGET = 512
CPU_TOKEN_BUDGET = 128
"""Tokens in one forward pass. With 512 a prompt is no faster on a CPU, and everybody's next token waits for the pass:
802 against 792 tokens/s and 639 against 162 ms, measured with 150 M parameters on two cores."""

_CELL_TARGET = 32768
_BYTES_TARGET = 2 << 30
_F16_BYTES = 2
_CELL_ALIGNMENT = 256
"""llama.cpp rounds the context up to this."""


@dataclass(frozen=True)
class CacheShape:
    """What one cell costs: `key_values` is the number of K and V elements per token, summed over the layers."""

    key_values: int

    @property
    def bytes_per_cell(self) -> int:
        return self.key_values * _F16_BYTES


@dataclass(frozen=True)
class CacheSize:
    """`context_length` tokens at most in one sequence, `cells` in all sequences together."""

    context_length: int
    max_sequences: int
    cells: int


def default_context_length(trained_context: int) -> int:
    """Tokens per sequence for a model trained on so many, 0 where that is unknown."""
    return min(trained_context or DEFAULT_CONTEXT_LENGTH, DEFAULT_CONTEXT_LENGTH)


def choose(
    shape: CacheShape, trained_context: int, context_length: int | None = None, max_sequences: int | None = None
) -> CacheSize:
    """The cache for a model trained on `trained_context` tokens, for what the launch asked for, None where it did not.

    Room for every sequence at full length, but no more than 32,768 cells or 2 GiB, and never less than one full
    sequence.
    """
    length = context_length or default_context_length(trained_context)
    sequences = max_sequences or DEFAULT_MAX_SEQUENCES
    affordable = _BYTES_TARGET // max(shape.bytes_per_cell, 1)
    cells = max(length, min(sequences * length, _CELL_TARGET, affordable))
    return CacheSize(length, sequences, -(-cells // _CELL_ALIGNMENT) * _CELL_ALIGNMENT)
