"""From conversations to padded batches of token ids with a loss weight per position."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from demo_model.corpus.conversation import Conversation
from demo_model.corpus.exchange import normalised
from demo_model.corpus.mixture import training_conversations
from demo_model.template import render
from demo_model.tokenizer import Tokenizer

LENGTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
_POOL = 3000


@dataclass(frozen=True)
class Batch:
    """Token ids of shape (batch, length), and the loss weight of each as a target, in [0, 1], of the same shape."""

    tokens: Tensor
    weights: Tensor

    def to(self, device: str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.tokens.to(device, non_blocking=True), self.weights.to(device, non_blocking=True))


class LeakError(AssertionError):
    """A held-out question turned up in the training text."""


def weighted_tokens(conversation: Conversation, tokenizer: Tokenizer) -> tuple[list[int], list[float]]:
    """Token ids of a conversation and their loss weights: only what the assistant says counts, with its end mark."""
    if conversation.plain:
        ids = [*tokenizer.encode(conversation.plain), tokenizer.ids["<|endoftext|>"]]
        return ids, [0.0] + [conversation.weights[0] / 4] * (len(ids) - 1)
    ids = tokenizer.encode(render(conversation.messages, conversation.tools))
    weights = [0.0] * len(ids)
    opening = tokenizer.encode("<|im_start|>assistant\n")
    end = tokenizer.ids["<|im_end|>"]
    answers = iter(conversation.weights)
    position = 0
    while position < len(ids):
        if ids[position] == opening[0] and ids[position : position + len(opening)] == opening:
            weight = next(answers) / 4
            position += len(opening)
            while ids[position] != end:
                weights[position] = weight
                position += 1
            weights[position] = weight
        position += 1
    return ids, weights


class BatchStream(IterableDataset[Batch]):
    """An endless stream of batches. Conversations of like length share a batch, so that little is padding."""

    def __init__(self, tokenizer: Tokenizer, seed: int, tokens_per_batch: int, forbidden: frozenset[str]) -> None:
        self._tokenizer = tokenizer
        self._seed = seed
        self._start(0)
        self._tokens_per_batch = tokens_per_batch
        self._forbidden = forbidden
        self._waiting: dict[int, list[tuple[list[int], list[float]]]] = {length: [] for length in LENGTHS}

    def _start(self, worker: int) -> None:
        # A large prime apart, so that no two streams of a run share their conversations.
        seed = self._seed + 1_299_709 * worker
        self._rng = random.Random(seed)
        self._conversations = training_conversations(seed)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is not None:
            self._start(worker.id)
        while True:
            yield from self._pool()

    def _pool(self) -> list[Batch]:
        for _ in range(_POOL):
            conversation = next(self._conversations)
            for text in conversation.user_texts():
                if normalised(text) in self._forbidden:
                    raise LeakError(f"held-out question in the training text: {text!r}")
            ids, weights = weighted_tokens(conversation, self._tokenizer)
            if len(ids) <= LENGTHS[-1]:
                self._waiting[next(length for length in LENGTHS if len(ids) <= length)].append((ids, weights))
        batches = []
        for length, waiting in self._waiting.items():
            size = max(1, self._tokens_per_batch // length)
            while len(waiting) >= size:
                batches.append(self._padded(waiting[:size], length))
                del waiting[:size]
        self._rng.shuffle(batches)
        return batches

    def _padded(self, rows: list[tuple[list[int], list[float]]], length: int) -> Batch:
        pad = self._tokenizer.ids["<|endoftext|>"]
        tokens = [ids + [pad] * (length - len(ids)) for ids, _ in rows]
        weights = [row + [0.0] * (length - len(row)) for _, row in rows]
        return Batch(torch.tensor(tokens), torch.tensor(weights))


def fed(stream: BatchStream, feeders: int) -> Iterator[Batch]:
    """The batches of `stream`, made by this process or, in a fixed order, by `feeders` others."""
    if feeders == 0:
        return iter(stream)
    return iter(DataLoader(stream, batch_size=None, num_workers=feeders, prefetch_factor=16))
