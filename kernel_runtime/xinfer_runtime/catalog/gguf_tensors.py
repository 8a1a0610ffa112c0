"""The tensor table of a GGUF file: its rows, and what can be wrong with them.

llama.cpp maps the file and computes with what the table says, so a row that does not hold is a read outside the map.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xinfer_runtime.catalog.gguf_types import NUMBERS, TENSOR_TYPES, VECTORS

_MAX_NAME = 63
"""Bytes of a name; llama.cpp has room for no more."""
_MAX_ELEMENTS = 1 << 50

_COMPUTED_WITH = re.compile(
    r"(?:.*\.)?(?:token_embd|output|attn_[a-z_]+|ffn_(?!.*tid2eid)[a-z_]+)\.(?:weight|bias)(?:\.lora_[ab])?"
)
"""Tensors that are factors of products or sums: for integers among them llama.cpp has no code, and does not check."""


@dataclass(frozen=True)
class Tensor:
    """A row of the tensor table; `offset` is from the start of the tensor data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int | None:
        """Size of the data, None for a type that is not known here."""
        if self.type not in TENSOR_TYPES:
            return None
        _, block, size = TENSOR_TYPES[self.type]
        return -(-self.elements // block) * size


def faults(tensors: Sequence[Tensor], alignment: int, data_start: int, file_bytes: int) -> Iterator[str]:
    """What is wrong with the table of a file of that size, whose tensor data begin at `data_start`."""
    names: set[str] = set()
    expected = 0
    for tensor in tensors:
        what = f"tensor {tensor.name[:80]!r}"
        if tensor.name in names:
            yield f"{what} is there twice"
        names.add(tensor.name)
        if fault := _own_fault(tensor):
            yield f"{what} {fault}"
            return
        size = tensor.bytes or 0
        end = data_start + tensor.offset + size
        if end > file_bytes:
            yield f"it is truncated: {what} ends at byte {end}, the file has {file_bytes}. Copy it again."
        if tensor.offset != expected:
            yield f"{what} is at byte {tensor.offset} of the data, where the tensors before it end at {expected}"
        expected += -(-size // alignment) * alignment


def _own_fault(tensor: Tensor) -> str | None:
    if not 0 < len(tensor.name.encode()) <= _MAX_NAME:
        return f"has a name of {len(tensor.name.encode())} bytes, where 1 to {_MAX_NAME} are allowed"
    if any(size < 1 for size in tensor.shape) or tensor.elements > _MAX_ELEMENTS:
        return f"has an impossible shape {tensor.shape}"
    if tensor.type not in TENSOR_TYPES:
        return f"is of type {tensor.type}, which is not known"
    kind, block, _ = TENSOR_TYPES[tensor.type]
    row = tensor.shape[0] if tensor.shape else 1
    if row % block:
        return f"has rows of {row} elements, which {kind} cannot hold: it has blocks of {block}"
    if _COMPUTED_WITH.fullmatch(tensor.name) and tensor.type in NUMBERS:
        return f"is of type {kind}, which a model cannot compute with"
    if len(tensor.shape) < 2 and _is_vector(tensor.name) and tensor.type not in VECTORS:
        return f"is a vector of type {kind}; vectors are not quantized"
    return None


def _is_vector(name: str) -> bool:
    return name.endswith(("norm.weight", ".bias"))
