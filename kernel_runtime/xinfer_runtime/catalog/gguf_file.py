"""The header of a GGUF file: metadata and tensor table, read without the tensors and without any library.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. A model file is
hostile data: every count and length is checked against a limit and against what is left of the file before anything
is read.
"""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xinfer_runtime.catalog.gguf_types import FILE_TYPES, TENSOR_TYPES
from xinfer_runtime.engines.llama_cpp.sizing import CacheShape
from xinfer_runtime.errors import ModelFileError

_MAX_METADATA = 1 << 16
_MAX_TENSORS = 1 << 17
_MAX_KEY = 1 << 16
_MAX_STRING = 1 << 24
_MAX_KEPT_ITEMS = 4096
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 1 << 50

_STRING = 8
_ARRAY = 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

Scalar = int | float | bool | str
Value = Scalar | list[int | float | bool] | None
"""None stands for an array that was not kept: of strings, or too long."""


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


@dataclass(frozen=True)
class GgufFile:
    """What the header says."""

    path: Path
    file_bytes: int
    data_start: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        return self._text("general.name")

    @property
    def chat_template(self) -> str | None:
        return self._text("tokenizer.chat_template") or None

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def context_length(self) -> int:
        """Tokens that the model was trained for, 0 where the file does not say."""
        return self._number("context_length")

    @property
    def weight_bytes(self) -> int:
        """Everything after the header, padding between tensors included."""
        return self.file_bytes - self.data_start

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding, 0 where there is none."""
        embedding = next((tensor for tensor in self.tensors if tensor.name == "token_embd.weight"), None)
        return embedding.shape[1] if embedding and len(embedding.shape) == 2 else 0

    @property
    def embedding_length(self) -> int:
        return self._number("embedding_length")

    @property
    def quantization(self) -> str:
        """Such as Q4_K_M: what the file says, or else the type that most weights have."""
        label = FILE_TYPES.get(self._int("general.file_type", -1))
        if label is not None:
            return label
        weights: dict[int, int] = {}
        for tensor in self.tensors:
            weights[tensor.type] = weights.get(tensor.type, 0) + tensor.elements
        most = max(weights, key=weights.__getitem__, default=-1)
        return TENSOR_TYPES[most][0] if most in TENSOR_TYPES else ""

    @property
    def cache_shape(self) -> CacheShape:
        """Elements of K and V per token over all layers, as llama.cpp allocates them.

        Layers without attention (head_count_kv 0) hold none. Sliding-window layers are counted in full: the engine
        keeps llama.cpp's default of full-size caches for them.
        """
        layers = self._number("block_count")
        heads = self._number("attention.head_count")
        size = self.embedding_length // heads if heads else 0
        per_head = self._number("attention.key_length", size) + self._number("attention.value_length", size)
        if latent := self._number("attention.kv_lora_rank"):
            # Multi-head latent attention caches the compressed vector and its rotary part in place of heads.
            return CacheShape(layers * (latent + self._number("rope.dimension_count")))
        shared = self.metadata.get(f"{self.architecture}.attention.head_count_kv", heads)
        per_layer = shared if isinstance(shared, list) else [shared] * layers
        return CacheShape(sum(int(n) * per_head for n in per_layer if isinstance(n, int) and n > 0))

    def _number(self, key: str, default: int = 0) -> int:
        return self._int(f"{self.architecture}.{key}", default)

    def _int(self, key: str, default: int) -> int:
        value = self.metadata.get(key)
        if isinstance(value, list):  # Per layer: the largest is what buffers are made for.
            value = max((item for item in value if isinstance(item, int)), default=default)
        return value if isinstance(value, int) and value >= 0 else default

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""


def read_gguf(path: Path) -> GgufFile:
    """Read the header of `path`. Raises ModelFileError, naming file and fault, for anything that is no whole GGUF."""
    try:
        with path.open("rb") as file:
            return _Header(file, path).read()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}", param="model_path") from error


class _Header:
    """One pass over the header."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._left = self._size = os.fstat(file.fileno()).st_size

    def read(self) -> GgufFile:
        if self._left < 4 or self._take(4) != b"GGUF":
            raise self._fault("it is not a GGUF file (it does not begin with GGUF)")
        version = int(self._scalar("I"))
        if version not in (2, 3):
            raise self._fault(f"GGUF version {version} is not supported, versions 2 and 3 are")
        tensor_count = self._count("tensors", _MAX_TENSORS)
        metadata_count = self._count("metadata entries", _MAX_METADATA)
        metadata: dict[str, Value] = {}
        for _ in range(metadata_count):
            key = self._string(_MAX_KEY)
            metadata[key] = self._value(int(self._scalar("I")))
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise self._fault(f"its alignment is {alignment!r}")
        position = self._size - self._left
        data_start = -(-position // alignment) * alignment
        self._check_data(tensors, data_start)
        found = GgufFile(self._path, self._size, data_start, metadata, tensors)
        if not found.architecture:
            raise self._fault("it names no model architecture")
        return found

    def _check_data(self, tensors: tuple[Tensor, ...], data_start: int) -> None:
        for tensor in tensors:
            end = data_start + tensor.offset + (tensor.bytes or 0)
            if end > self._size:
                raise self._fault(
                    f"it is truncated: tensor {tensor.name} ends at byte {end}, the file has {self._size}. "
                    "Copy it again."
                )

    def _tensor(self) -> Tensor:
        name = self._string(_MAX_KEY)
        dimensions = int(self._scalar("I"))
        if dimensions > _MAX_DIMENSIONS:
            raise self._fault(f"tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(int(self._scalar("Q")) for _ in range(dimensions))
        if math.prod(shape) > _MAX_ELEMENTS:
            raise self._fault(f"tensor {name[:80]!r} has an impossible shape {shape}")
        return Tensor(name, shape, int(self._scalar("I")), int(self._scalar("Q")))

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string(_MAX_STRING)
        if kind == _ARRAY:
            return self._array()
        return self._scalar(self._code(kind))

    def _array(self) -> Value:
        kind = int(self._scalar("I"))
        count = self._count("array items", self._left)
        if kind == _STRING:
            for _ in range(count):
                self._skip(self._count("bytes of a string", _MAX_STRING))
            return None
        code = self._code(kind)
        size = count * struct.calcsize("<" + code)
        if count > _MAX_KEPT_ITEMS:
            self._skip(size)
            return None
        return list(struct.unpack(f"<{count}{code}", self._take(size)))

    def _code(self, kind: int) -> str:
        code = _SCALARS.get(kind)
        if code is None:
            raise self._fault(f"its metadata has a value of unknown type {kind}")
        return code

    def _scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]
        return value

    def _count(self, what: str, limit: int) -> int:
        count = int(self._scalar("Q"))
        if count > limit:
            raise self._fault(f"it claims {count} {what}, more than {limit}")
        return count

    def _string(self, limit: int) -> str:
        return self._take(self._count("bytes of a string", limit)).decode("utf-8", errors="replace")

    def _take(self, size: int) -> bytes:
        self._spend(size)
        data = self._file.read(size)
        if len(data) != size:
            raise self._fault("it became shorter while it was read")
        return data

    def _skip(self, size: int) -> None:
        self._spend(size)
        self._file.seek(size, os.SEEK_CUR)

    def _spend(self, size: int) -> None:
        if size > self._left:
            raise self._fault(
                f"it is truncated: its header goes on after the file's {self._size} bytes. Copy it again."
            )
        self._left -= size

    def _fault(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self._path} cannot be used: {what}", param="model_path")
