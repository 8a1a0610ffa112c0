"""Metadata over which llama.cpp would end the process, or read what is not there."""

import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.errors import ModelFileError

from .conftest import DATA_BYTES, LLAMA, TENSORS, array, entry, gguf, string, text, u32

Write = Callable[[bytes], Path]


def f32(key: str, value: float) -> bytes:
    return entry(key, 6, struct.pack("<f", value))


def i32s(key: str, *values: int) -> bytes:
    return array(key, 5, len(values), struct.pack(f"<{len(values)}i", *values))


def texts(key: str, *values: str) -> bytes:
    return array(key, 8, len(values), b"".join(map(string, values)))


def with_entries(*entries: bytes) -> bytes:
    """The small Llama with these entries in place of its own of the same keys."""
    replaced = {each[: 8 + struct.unpack_from("<Q", each)[0]] for each in entries}
    kept = [each for each in LLAMA if each[: 8 + struct.unpack_from("<Q", each)[0]] not in replaced]
    return gguf([*kept, *entries], TENSORS, DATA_BYTES)


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ([u32("llama.block_count", 0)], "block_count is 0"),
        ([u32("llama.block_count", 513)], "block_count is 513"),
        ([u32("llama.nextn_predict_layers", 4)], "nextn_predict_layers is 4"),
        ([u32("llama.context_length", 0)], "context_length is 0"),
        ([u32("llama.context_length", 2**31)], "context_length is 2147483648"),
        ([u32("llama.embedding_length", 0)], "embedding_length is 0"),
        ([u32("llama.embedding_length", 2**30)], "embedding_length is 1073741824"),
        ([u32("llama.vocab_size", 2**32 - 1)], "vocab_size is 4294967295"),
        ([u32("llama.attention.head_count", 65)], "head_count is 65"),
        ([u32("llama.attention.head_count_kv", 3)], "4 attention heads cannot share 3"),
        ([i32s("llama.attention.head_count_kv", 4, 0, 3)], "4 attention heads cannot share 3"),
        ([u32("llama.attention.key_length", 2**31)], "key_length is 2147483648"),
        ([u32("llama.rope.dimension_count", 7)], "an odd number"),
        ([u32("llama.expert_count", 1025)], "expert_count is 1025"),
        ([u32("llama.expert_used_count", 2)], "expert_used_count is 2"),
        ([u32("llama.expert_count", 8)], "none is used"),
        (
            [
                u32("llama.expert_count", 8),
                u32("llama.expert_used_count", 2),
                u32("llama.expert_group_count", 3),
            ],
            "8 experts cannot be divided into 3 groups",
        ),
        ([f32("llama.attention.layer_norm_rms_epsilon", -1.0)], "epsilon is -1.0"),
        ([f32("llama.attention.layer_norm_rms_epsilon", math.nan)], "epsilon is nan"),
        ([text("llama.rope.scaling.type", "curl")], "rope.scaling.type is 'curl'"),
        ([u32("llama.pooling_type", 9)], "pooling_type is 9"),
        ([texts("tokenizer.ggml.tokens", "a", "b", "a")], "token 2, b'a', is in the vocabulary twice"),
        ([texts("tokenizer.ggml.tokens", "a", "a\0b")], "is in the vocabulary twice"),
        ([texts("tokenizer.ggml.tokens", "", "[EMPTY_0]")], "is in the vocabulary twice"),
        ([i32s("tokenizer.ggml.token_type", 1)], "2 tokens and the kinds of 1"),
        (
            [text("tokenizer.ggml.model", "llama"), i32s("tokenizer.ggml.token_type", 1, 6)],
            "token 1 stands for a byte and is spelt b'b'",
        ),
        ([entry("split.no", 4, struct.pack("<I", 1))], "split.no is of type 4"),
    ],
)
def test_metadata_that_llama_cpp_would_not_survive_is_refused(write: Write, entries: list[bytes], fault: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        read_gguf(write(with_entries(*entries)))
    assert fault in caught.value.message


def test_one_expert_is_none_where_llama_cpp_says_so(write: Write) -> None:
    entries = [each for each in LLAMA if not each[8:].startswith((b"general.architecture", b"llama."))]
    raw = gguf(
        [*entries, text("general.architecture", "hunyuan-dense"), u32("hunyuan-dense.expert_used_count", 1)],
        TENSORS,
        DATA_BYTES,
    )
    assert read_gguf(write(raw)).architecture == "hunyuan-dense"


def test_what_llama_cpp_knows_is_left_alone(write: Write) -> None:
    entries = [
        u32("llama.expert_count", 8),
        u32("llama.expert_used_count", 2),
        u32("llama.expert_group_count", 4),
        u32("llama.expert_group_used_count", 2),
        i32s("llama.attention.head_count_kv", 2, 0, 4),
        text("llama.rope.scaling.type", "yarn"),
        f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
        text("tokenizer.ggml.model", "llama"),
        texts("tokenizer.ggml.tokens", "a", "<0x0A>", ""),
        i32s("tokenizer.ggml.token_type", 1, 6, 5),
    ]
    assert read_gguf(write(with_entries(*entries))).architecture == "llama"
