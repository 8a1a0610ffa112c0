"""Guesses with a second, smaller model: what it finds most likely next, and after that, and so on.

Leviathan et al., Fast Inference from Transformers via Speculative Decoding, ICML 2023; a guess is right where the large
model's own draw is the same, so that not even a sampled text depends on it (see `speculation`).
"""

import logging
import time
from collections.abc import Callable, Sequence

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np

from xinfer_runtime.engines.llama_cpp.cell_operations import Remove
from xinfer_runtime.engines.llama_cpp.context import DECODED, Chunk, Context
from xinfer_runtime.engines.llama_cpp.draft_slots import DraftSlots, Place
from xinfer_runtime.engines.llama_cpp.sizing import DRAFT_AT_ONCE, DRAFT_TOKEN_BUDGET
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.engines.llama_cpp.token_sequence import TokenSequence
from xinfer_runtime.engines.llama_cpp.weights import Weights

logger = logging.getLogger(__name__)


class DraftModel:
    """Belongs to the thread of its context. When a pass fails it guesses no more: nobody depends on it."""

    def __init__(
        self,
        weights: Weights,
        context: Context,
        slots: int,
        vocabulary: int,
        threads: Callable[[int], ThreadChoice],
    ) -> None:
        """`vocabulary` is the size of the large model's: tokens beyond it are not guessed."""
        self._weights = weights
        self._context = context
        self._slots = DraftSlots(slots, context.cells)
        self._vocabulary = vocabulary
        self._threads = threads
        self._failed = False
        self._places: dict[TokenSequence, Place] = {}
        self.pass_seconds = 0.0

    def use_cores(self, cores: int) -> None:
        self._context.use_threads(self._threads(cores))

    def ready(self, sequences: Sequence[TokenSequence], wanted: Sequence[int]) -> list[int]:
        """How many tokens it can guess for each. Of what it does not know yet it computes a part at each call."""
        self._places.clear()
        ready, budget = [0] * len(sequences), DRAFT_TOKEN_BUDGET
        behind: list[Chunk] = []
        for index, sequence in enumerate(sequences):
            if self._failed or not wanted[index]:
                continue
            place = self._slots.place(sequence, wanted[index], sequences)
            if place is None:
                continue
            start, lacking = len(place.tokens), len(sequence.tokens) - len(place.tokens)
            if lacking > DRAFT_AT_ONCE:
                count = min(lacking - 1, budget)
                if count:
                    tokens = sequence.tokens[start : start + count]
                    behind.append(Chunk(place.slot, start, tokens, 0))
                    place.tokens += tokens
                    place.agreed = len(place.tokens)
                budget -= count
                lacking -= count
            if lacking <= DRAFT_AT_ONCE:
                ready[index] = wanted[index]
                self._places[sequence] = place
        if not self._compute(behind):
            return [0] * len(sequences)
        return ready

    def guess(self, sequences: Sequence[TokenSequence], lengths: Sequence[int]) -> list[Sequence[int]]:
        """So many tokens for each, at most what `ready` said just before; fewer where a pass failed."""
        started = time.perf_counter()
        guesses: list[list[int]] = [[] for _ in sequences]
        depth = max(lengths, default=0)
        for turn in range(depth):
            active = [index for index, length in enumerate(lengths) if length > turn]
            active.sort(key=lambda index: self._places[sequences[index]].slot)
            chunks = []
            for index in active:
                place = self._places[sequences[index]]
                start = len(place.tokens)
                tokens = guesses[index][-1:] if turn else sequences[index].tokens[start:]
                chunks.append(Chunk(place.slot, start, tokens, 1))
                place.tokens += tokens
                place.agreed = place.agreed if turn else len(place.tokens)
            likeliest = self._most_likely(chunks)
            if not likeliest:
                break
            for index, token in zip(active, likeliest, strict=True):
                guesses[index].append(token)
        if depth:
            self.pass_seconds = (time.perf_counter() - started) / depth
        return [tuple(each) for each in guesses]

    def free(self) -> None:
        self._context.free()
        self._weights.free()

    def _most_likely(self, chunks: Sequence[Chunk]) -> list[int]:
        """The likeliest token after each chunk, or nothing if a pass failed."""
        tokens = [0] * len(chunks)
        for indexes in self._context.passes([len(chunk.tokens) for chunk in chunks]):
            if not self._compute([chunks[index] for index in indexes]):
                return []
            logits = self._context.logits(len(indexes))[:, : self._vocabulary]
            for index, token in zip(indexes, np.argmax(logits, axis=1).tolist(), strict=True):
                tokens[index] = token
        return tokens

    def _compute(self, chunks: Sequence[Chunk]) -> bool:
        freed = [Remove(slot, start) for slot, start in self._slots.freed]
        self._slots.freed.clear()
        self._context.change(freed)
        if not chunks:
            return True
        code = self._context.decode(sorted(chunks, key=lambda chunk: chunk.slot))
        if code != DECODED:
            logger.error("The draft model could not compute a batch (code %d): it guesses no more", code)
            self._failed = True
            self._slots.forget_all()
            self._context.forget_all()
        return code == DECODED
