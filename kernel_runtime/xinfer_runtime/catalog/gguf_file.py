"""The header of a GGUF file: metadata and tensor table, read without the tensors and without any library.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. A model file is
hostile data: every count and length is checked against a limit and against what is left of the file before anything
is read.
"""

import os
import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from xinfer_runtime.catalog import gguf_metadata, gguf_tensors
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_metadata import Unkept, Value
from xinfer_runtime.catalog.gguf_parts import part_paths
from xinfer_runtime.catalog.gguf_tensors import Tensor
from xinfer_runtime.errors import ModelFileError

_MAX_METADATA = 1 << 16
_MAX_TENSORS = 1 << 17
_MAX_KEY = 1 << 16
_MAX_STRING = 1 << 24
_MAX_ITEMS = 1 << 28
_MAX_STRINGS = 1 << 23
"""In all arrays together: each takes a moment to step over."""
_MAX_KEPT_ITEMS = 4096
_MAX_DIMENSIONS = 4

_U16, _U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 2, 4, 5, 6, 7, 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KINDS = {
    "general.alignment": _U32,
    "general.type": _STRING,
    "adapter.type": _STRING,
    "adapter.lora.alpha": _F32,
    "split.no": _U16,
    "split.count": _U16,
    "split.tensors.count": _I32,
    "clip.has_vision_encoder": _BOOL,
    "clip.has_audio_encoder": _BOOL,
    "clip.has_gen_audio_encoder": _BOOL,
    "clip.use_gelu": _BOOL,
    "clip.use_silu": _BOOL,
    "clip.projector_type": _STRING,
    "clip.vision.projector_type": _STRING,
    "clip.vision.image_size": _U32,
    "clip.vision.patch_size": _U32,
    "clip.vision.embedding_length": _U32,
    "clip.vision.feed_forward_length": _U32,
    "clip.vision.block_count": _U32,
    "clip.vision.projection_dim": _U32,
    "clip.vision.attention.head_count": _U32,
    "clip.vision.attention.head_count_kv": _U32,
    "clip.vision.attention.head_dim": _U32,
    "clip.vision.attention.layer_norm_epsilon": _F32,
}
"""llama.cpp reads these without asking what they are."""

_TOKENS = "tokenizer.ggml.tokens"
_TOKEN_KINDS = "tokenizer.ggml.token_type"


def read_gguf(path: Path) -> GgufFile:
    """Read the header of `path`, and of the other parts of a split model, and check them against the files.

    Raises ModelFileError, naming file and fault, for anything that is no whole GGUF, or that llama.cpp would not
    survive.
    """
    file = _read(path, 0)
    count = file.metadata.get("split.count", 1)
    if not isinstance(count, int) or count < 2:
        return file
    try:
        parts = [file, *(_read(each, number) for number, each in enumerate(part_paths(path, count)[1:], start=1))]
    except ValueError as error:
        raise _broken(path, str(error)) from error
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    announced = file.metadata.get("split.tensors.count")
    if len({tensor.name for tensor in tensors}) != announced or len(tensors) != announced:
        raise _broken(path, f"its {count} parts have {len(tensors)} tensors, it announces {announced}, each once")
    return replace(file, tensors=tensors, weight_bytes=sum(part.weight_bytes for part in parts))


def _read(path: Path, part: int) -> GgufFile:
    try:
        with path.open("rb") as file:
            return _Header(file, path, part).read()
    except OSError as error:
        raise ModelFileError(
            f"{path.name} cannot be read: {error.strerror or type(error).__name__}", param="model_path", place=str(path)
        ) from error


def _broken(path: Path, what: str) -> ModelFileError:
    return ModelFileError(f"{path.name} cannot be used: {what}", param="model_path", place=str(path))


class _Header:
    """One pass over the header of a model's part, the first of which is 0."""

    def __init__(self, file: BinaryIO, path: Path, part: int) -> None:
        self._file = file
        self._path = path
        self._part = part
        self._left = self._size = os.fstat(file.fileno()).st_size
        self._strings = 0
        self._tokens: list[bytes] = []
        self._token_kinds: tuple[int, ...] = ()

    def read(self) -> GgufFile:
        if self._left < 4 or self._take(4) != b"GGUF":
            raise self._fault("it is not a GGUF file (it does not begin with GGUF)")
        version = int(self._scalar("I"))
        if version not in (2, 3):
            raise self._fault(f"GGUF version {version} is not supported, versions 2 and 3 are")
        tensor_count = self._count("tensors", _MAX_TENSORS)
        metadata = self._metadata(self._count("metadata entries", _MAX_METADATA))
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._fault(f"its alignment is {alignment!r:.40}, and no power of two")
        position = self._size - self._left
        data_start = -(-position // alignment) * alignment
        self._refuse_first_of(gguf_tensors.faults(tensors, alignment, data_start, self._size))
        number, count = metadata.get("split.no", 0), metadata.get("split.count", 1)
        if not isinstance(number, int) or number != self._part:
            raise self._fault(f"it is part {number!r} of {count!r} (counted from 0), where part {self._part} is needed")
        if not self._part:
            tokenizer = metadata.get("tokenizer.ggml.model")
            self._refuse_first_of(gguf_metadata.faults(metadata))
            self._refuse_first_of(gguf_metadata.vocabulary_faults(self._tokens, self._token_kinds, tokenizer))
        return GgufFile(self._path, self._size, data_start, metadata, tensors, max(0, self._size - data_start))

    def _refuse_first_of(self, faults: Iterable[str]) -> None:
        for what in faults:
            raise self._fault(what)

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self._string(_MAX_KEY)
            if not key or key in metadata:
                raise self._fault(f"its metadata has {key[:80]!r} twice" if key else "its metadata has an empty key")
            kind = int(self._scalar("I"))
            if kind != _KINDS.get(key, kind):
                raise self._fault(f"{key} is of type {kind}, not {_KINDS[key]}")
            metadata[key] = self._value(key, kind)
        return metadata

    def _tensor(self) -> Tensor:
        name = self._string(_MAX_KEY)
        dimensions = int(self._scalar("I"))
        if dimensions > _MAX_DIMENSIONS:
            raise self._fault(f"tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(int(self._scalar("Q")) for _ in range(dimensions))
        return Tensor(name, shape, int(self._scalar("I")), int(self._scalar("Q")))

    def _value(self, key: str, kind: int) -> Value:
        if kind == _STRING:
            return self._string(_MAX_STRING)
        if kind == _ARRAY:
            return self._array(key)
        return self._scalar(self._code(kind))

    def _array(self, key: str) -> Value:
        kind = int(self._scalar("I"))
        count = self._count("array items", min(self._left, _MAX_ITEMS))
        if kind == _STRING:
            return self._string_array(key, count)
        code = self._code(kind)
        size = count * struct.calcsize("<" + code)
        if key == _TOKEN_KINDS and kind == _I32:
            self._token_kinds = struct.unpack(f"<{count}i", self._take(size))
            return Unkept(count)
        if count > _MAX_KEPT_ITEMS:
            self._skip(size)
            return Unkept(count)
        return list(struct.unpack(f"<{count}{code}", self._take(size)))

    def _string_array(self, key: str, count: int) -> Value:
        self._strings += count
        if self._strings > _MAX_STRINGS:
            raise self._fault(f"its metadata has more than {_MAX_STRINGS} texts")
        for _ in range(count):
            size = self._count("bytes of a string", _MAX_STRING)
            if key == _TOKENS:
                self._tokens.append(self._take(size))
            else:
                self._skip(size)
        return Unkept(count)

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
        return _broken(self._path, what)
