"""GGUF headers written by hand, right and wrong."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def u32(key: str, value: int) -> bytes:
    return entry(key, 4, struct.pack("<I", value))


def text(key: str, value: str) -> bytes:
    return entry(key, 8, string(value))


def array(key: str, kind: int, count: int, items: bytes) -> bytes:
    return entry(key, 9, struct.pack("<IQ", kind, count) + items)


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(
    entries: list[bytes],
    tensors: list[bytes],
    data: int,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A whole file with `data` bytes of tensor data."""
    n_tensors, n_entries = counts or (len(tensors), len(entries))
    header = magic + struct.pack("<IQQ", version, n_tensors, n_entries) + b"".join(entries) + b"".join(tensors)
    return header + b"\0" * (-len(header) % 32 + data)


LLAMA = [
    text("general.architecture", "llama"),
    text("general.name", "Small"),
    u32("general.file_type", 7),
    u32("llama.context_length", 2048),
    u32("llama.embedding_length", 64),
    u32("llama.block_count", 3),
    u32("llama.attention.head_count", 4),
    u32("llama.attention.head_count_kv", 2),
    text("tokenizer.chat_template", "{{ messages }}"),
    array("tokenizer.ggml.tokens", 8, 2, string("a") + string("b")),
]
TENSORS = [tensor("token_embd.weight", (64, 96), 8, 0), tensor("output_norm.weight", (64,), 0, 64 * 96 // 32 * 34)]
DATA_BYTES = 64 * 96 // 32 * 34 + 256


@pytest.fixture
def llama_bytes() -> bytes:
    return gguf(LLAMA, TENSORS, DATA_BYTES)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(raw: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(raw)
        return path

    return write
