"""Models that are split into several files."""

import struct
from pathlib import Path

import pytest

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.errors import ModelFileError

from .conftest import LLAMA, entry, gguf, tensor

EMBEDDING = tensor("token_embd.weight", (64, 96), 8, 0)
EMBEDDING_BYTES = 64 * 96 // 32 * 34
NORM = tensor("output_norm.weight", (64,), 0, 0)


def numbers(part: int, count: int = 2, tensors: int = 2) -> list[bytes]:
    return [
        entry("split.no", 2, struct.pack("<H", part)),
        entry("split.count", 2, struct.pack("<H", count)),
        entry("split.tensors.count", 5, struct.pack("<i", tensors)),
    ]


FIRST = gguf([*LLAMA, *numbers(0)], [EMBEDDING], EMBEDDING_BYTES)
SECOND = gguf(numbers(1), [NORM], 256)


def write_parts(folder: Path, first: bytes = FIRST, second: bytes | None = SECOND) -> Path:
    if second is not None:
        (folder / "model-00002-of-00002.gguf").write_bytes(second)
    path = folder / "model-00001-of-00002.gguf"
    path.write_bytes(first)
    return path


def test_the_parts_are_one_model(tmp_path: Path) -> None:
    file = read_gguf(write_parts(tmp_path))
    assert [each.name for each in file.tensors] == ["token_embd.weight", "output_norm.weight"]
    assert file.parameters == 64 * 96 + 64
    assert file.weight_bytes == EMBEDDING_BYTES + 256


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"00002-of-00002\.gguf cannot be read"):
        read_gguf(write_parts(tmp_path, second=None))


@pytest.mark.parametrize(
    ("first", "second", "fault"),
    [
        (FIRST, SECOND[:-1], r"00002\.gguf cannot be used: it is truncated"),
        (FIRST, gguf(numbers(0), [NORM], 256), "it is part 0 of 2"),
        (FIRST, gguf(numbers(1), [EMBEDDING], EMBEDDING_BYTES), "have 2 tensors, it announces 2, each once"),
        (gguf([*LLAMA, *numbers(0, tensors=3)], [EMBEDDING], EMBEDDING_BYTES), SECOND, "it announces 3"),
        (gguf([*LLAMA, *numbers(0, count=3)], [EMBEDDING], EMBEDDING_BYTES), SECOND, "-00001-of-00003"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, first: bytes, second: bytes, fault: str) -> None:
    with pytest.raises(ModelFileError, match=fault):
        read_gguf(write_parts(tmp_path, first, second))


def test_a_later_part_is_no_model(tmp_path: Path) -> None:
    write_parts(tmp_path)
    with pytest.raises(ModelFileError, match="it is part 1 of 2"):
        read_gguf(tmp_path / "model-00002-of-00002.gguf")
