"""What can be wrong with the metadata of a GGUF file: what llama.cpp takes for granted, and ends the process over.

Where llama.cpp looks itself and says what it found (a missing key, a tensor of the wrong shape), it is left to that.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Scalar = int | float | bool | str


@dataclass(frozen=True)
class Unkept:
    """An array that is too long to keep, or of strings."""

    count: int


Value = Scalar | list[int | float | bool] | Unkept

_MAX_LAYERS = 512
_MAX_EXPERTS = 1024
_MAX_WIDTH = 1 << 22
_MAX_HEAD = 1 << 16
_MAX_TOKENS = 1 << 22
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_POOLINGS = 4
_BYTE_TOKEN = 6
_BYTE_SPELLING = re.compile(rb"<0x[0-9A-Fa-f]{2}>")


def faults(metadata: Mapping[str, Value]) -> Iterator[str]:
    """What is wrong with the metadata of a model."""
    if not isinstance(architecture := metadata.get("general.architecture"), str) or not architecture:
        yield "it names no model architecture"
        return
    numbers = _Numbers(metadata, architecture)
    yield from _shape_faults(numbers)
    yield from _head_faults(numbers)
    yield from _expert_faults(numbers)
    for key, value in metadata.items():
        if key.endswith("epsilon") and not (isinstance(value, float) and 0 <= value < math.inf):
            yield f"{key} is {value!r:.40}, and no small positive number"
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        yield f"{architecture}.rope.scaling.type is {scaling!r:.40}, which is not known"
    if not 0 <= numbers.one("pooling_type") <= _POOLINGS:
        yield f"{architecture}.pooling_type is {numbers.one('pooling_type')}, which is not known"


def vocabulary_faults(tokens: Sequence[bytes], kinds: Sequence[int], model: Value | None) -> Iterator[str]:
    """What is wrong with the vocabulary: how its tokens are spelt, their kinds, and its tokenizer's name."""
    if len(tokens) > _MAX_TOKENS:
        yield f"it has {len(tokens)} tokens, more than {_MAX_TOKENS}"
    seen: set[bytes] = set()
    for token, spelling in enumerate(tokens):
        # As llama.cpp reads them: up to a zero, and with a name where nothing is left.
        named = spelling.partition(b"\0")[0] or b"[EMPTY_%d]" % token
        if named in seen:
            yield f"token {token}, {spelling[:40]!r}, is in the vocabulary twice"
        seen.add(named)
    if kinds and len(kinds) < len(tokens):
        yield f"it has {len(tokens)} tokens and the kinds of {len(kinds)}"
    if model == "llama":
        for token, kind in enumerate(kinds[: len(tokens)]):
            if kind == _BYTE_TOKEN and not _BYTE_SPELLING.fullmatch(tokens[token]):
                yield f"token {token} stands for a byte and is spelt {tokens[token][:40]!r}"


class _Numbers:
    """The metadata's whole numbers below the architecture's name."""

    def __init__(self, metadata: Mapping[str, Value], architecture: str) -> None:
        self._metadata = metadata
        self.architecture = architecture

    def all(self, key: str) -> list[int]:
        """One number, or one per layer; none where the key is missing or holds something else."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        values = value if isinstance(value, list) else [value]
        return [each for each in values if isinstance(each, int)]

    def one(self, key: str, default: int = 0) -> int:
        return next(iter(self.all(key)), default)

    def outside(self, key: str, least: int, most: int) -> Iterator[str]:
        for value in self.all(key):
            if not least <= value <= most:
                yield f"{self.architecture}.{key} is {value}, which is not from {least} to {most}"


def _shape_faults(numbers: _Numbers) -> Iterator[str]:
    yield from numbers.outside("block_count", 1, _MAX_LAYERS)
    yield from numbers.outside("nextn_predict_layers", 0, numbers.one("block_count"))
    yield from numbers.outside("context_length", 1, (1 << 31) - 1)
    yield from numbers.outside("vocab_size", 1, _MAX_TOKENS)
    for key in ("embedding_length", "embedding_length_out"):
        yield from numbers.outside(key, 1, _MAX_WIDTH)
    yield from numbers.outside("feed_forward_length", 0, _MAX_WIDTH)


def _head_faults(numbers: _Numbers) -> Iterator[str]:
    width = numbers.one("embedding_length")
    heads, shared = numbers.all("attention.head_count"), numbers.all("attention.head_count_kv")
    yield from numbers.outside("attention.head_count", 0, width)
    yield from numbers.outside("attention.head_count_kv", 0, width)
    for key in ("attention.key_length", "attention.value_length", "attention.kv_lora_rank", "attention.q_lora_rank"):
        yield from numbers.outside(key, 0, _MAX_HEAD)
    yield from numbers.outside("rope.dimension_count", 0, _MAX_HEAD)
    layers = max(len(heads), len(shared))
    for mine, theirs in zip(_per_layer(heads, layers), _per_layer(shared, layers), strict=True):
        if theirs and mine % theirs:
            yield f"{mine} attention heads cannot share {theirs} heads of keys and values"
    rotated = numbers.one("rope.dimension_count")
    if rotated % 2:
        yield f"{numbers.architecture}.rope.dimension_count is {rotated}, an odd number"


def _expert_faults(numbers: _Numbers) -> Iterator[str]:
    yield from numbers.outside("expert_count", 0, _MAX_EXPERTS)
    experts = numbers.one("expert_count")
    if experts < 2 and numbers.architecture.startswith("hunyuan"):
        return  # llama.cpp takes one expert for none there.
    yield from numbers.outside("expert_used_count", 0, experts)
    if experts and not any(numbers.all("expert_used_count")):
        yield f"of its {experts} experts none is used"
    groups = numbers.one("expert_group_count")
    if groups > 1:
        if groups >= experts or experts % groups:
            yield f"{experts} experts cannot be divided into {groups} groups"
        yield from numbers.outside("expert_group_used_count", 1, groups - 1)
    elif groups and groups >= experts:
        yield f"{experts} experts cannot be divided into {groups} groups"


def _per_layer(values: list[int], layers: int) -> list[int]:
    if len(values) < layers:
        return (values or [0]) * layers if len(values) < 2 else values + [0] * (layers - len(values))
    return values
