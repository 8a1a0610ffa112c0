"""How much an embedding model computes at once: arithmetic shared by the memory forecast and the engine."""

from dataclasses import dataclass

DEFAULT_CONTEXT_LENGTH = 8192
"""Tokens of one input at most, when nobody said."""

CPU_TOKEN_BUDGET = 256
"""Tokens of a pass, over as many inputs as that makes; an input that is longer gets a pass of its own.

The attention goes over all pairs of tokens of a pass: with MiniLM in q8_0 on one core, 128, 256 and 512 tokens were as
fast (1,600 tokens/s), 1,024 were slower by a quarter and 2,048 by two fifths; and after a short pass others have their
turn sooner."""

GPU_TOKEN_BUDGET = 4096

DEFAULT_MAX_SEQUENCES = 64
"""Inputs in one pass."""

_OUTPUT_BYTES = 2 << 30
"""llama.cpp keeps room for the logits of every token of a batch, though nobody reads them. With a large vocabulary,
that rather than the model bounds how long an input is by default."""
_LEAST_CONTEXT = 512
_ALIGNMENT = 256
_F32_BYTES = 4


@dataclass(frozen=True)
class EmbeddingSize:
    """`context_length` tokens at most in one input, `token_budget` in a batch unless one input needs more, and
    `max_sequences` inputs.

    `divisible` is whether a batch may be computed in several passes: where tokens look only back, and the last one has
    it all.
    """

    context_length: int
    token_budget: int
    max_sequences: int
    divisible: bool

    @property
    def batch_tokens(self) -> int:
        """Tokens in a batch at most."""
        return max(self.context_length, self.token_budget)

    @property
    def pass_tokens(self) -> int:
        """Tokens that are computed at once at most."""
        return self.token_budget if self.divisible else self.batch_tokens


def choose(
    trained_context: int,
    vocab_size: int,
    *,
    divisible: bool,
    on_gpu: bool,
    context_length: int | None = None,
    max_sequences: int | None = None,
    token_budget: int | None = None,
) -> EmbeddingSize:
    """The sizes for a model trained on `trained_context` tokens (0 where that is unknown), for what the launch asked
    for, None where it did not.
    """
    length = min(trained_context or DEFAULT_CONTEXT_LENGTH, DEFAULT_CONTEXT_LENGTH)
    affordable = _OUTPUT_BYTES // (max(vocab_size, 1) * _F32_BYTES) // _ALIGNMENT * _ALIGNMENT
    sequences = max_sequences or DEFAULT_MAX_SEQUENCES
    budget = token_budget or (GPU_TOKEN_BUDGET if on_gpu else CPU_TOKEN_BUDGET)
    return EmbeddingSize(
        context_length or min(length, max(affordable, _LEAST_CONTEXT)), max(budget, sequences), sequences, divisible
    )
