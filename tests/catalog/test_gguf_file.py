"""Reading GGUF headers, of which none can be trusted."""

import struct
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import gguf as reference
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.gguf_types import FILE_TYPES, TENSOR_TYPES
from xinfer_runtime.engines.llama_cpp.sizing import CacheShape
from xinfer_runtime.errors import ModelFileError

from .conftest import DATA_BYTES, LLAMA, TENSORS, array, entry, gguf, string, tensor, text, u32

Write = Callable[[bytes], Path]


def test_a_header_is_read(write: Write, llama_bytes: bytes) -> None:
    file = read_gguf(write(llama_bytes))
    assert (file.architecture, file.name, file.quantization) == ("llama", "Small", "Q8_0")
    assert (file.context_length, file.embedding_length, file.vocab_size) == (2048, 64, 96)
    assert file.chat_template == "{{ messages }}"
    assert file.parameters == 64 * 96 + 64
    assert file.weight_bytes == DATA_BYTES


def test_the_cache_holds_keys_and_values_of_every_layer(write: Write, llama_bytes: bytes) -> None:
    # 3 layers, 2 key-value heads of 64 / 4 elements, keys and values.
    assert read_gguf(write(llama_bytes)).cache_shape == CacheShape(3 * 2 * 16, 3 * 2 * 16)


def test_heads_can_differ_by_layer_and_have_a_size_of_their_own(write: Write) -> None:
    entries = [each for each in LLAMA if b"head_count_kv" not in each]
    entries += [
        array("llama.attention.head_count_kv", 5, 3, struct.pack("<3i", 2, 0, 4)),
        u32("llama.attention.key_length", 128),
        u32("llama.attention.value_length", 64),
    ]
    assert read_gguf(write(gguf(entries, TENSORS, DATA_BYTES))).cache_shape == CacheShape(6 * 128, 6 * 64)


def test_latent_attention_caches_the_compressed_vector(write: Write) -> None:
    entries = [*LLAMA, u32("llama.attention.kv_lora_rank", 512), u32("llama.rope.dimension_count", 64)]
    assert read_gguf(write(gguf(entries, TENSORS, DATA_BYTES))).cache_shape == CacheShape(3 * (512 + 64), 0)


def test_without_a_file_type_the_commonest_tensor_type_names_the_quantization(write: Write) -> None:
    entries = [each for each in LLAMA if b"file_type" not in each]
    assert read_gguf(write(gguf(entries, TENSORS, DATA_BYTES))).quantization == "Q8_0"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.gguf.*No such file") as caught:
        read_gguf(tmp_path / "none.gguf")
    assert caught.value.param == "model_path"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "not a GGUF"),
        (b"GG", "not a GGUF"),
        (b"PK\3\4" + b"\0" * 100, "not a GGUF"),
        (gguf(LLAMA, TENSORS, DATA_BYTES, version=1), "version 1"),
        (gguf(LLAMA, TENSORS, DATA_BYTES, version=0x03000000), "version"),
        (gguf(LLAMA, TENSORS, DATA_BYTES, counts=(2**63, 10)), "tensors"),
        (gguf(LLAMA, TENSORS, DATA_BYTES, counts=(2, 2**40)), "metadata entries"),
        (gguf(LLAMA, TENSORS, DATA_BYTES, counts=(2, 200)), "cannot be used"),
        (gguf([struct.pack("<Q", 2**62)], [], 0), "bytes of a string"),
        (gguf([struct.pack("<Q", 2**16)], [], 0), "truncated"),
        (gguf([entry("k", 77, b"")], [], 0), "unknown type 77"),
        (gguf([array("k", 9, 1, b"")], [], 0), "unknown type 9"),
        (gguf([array("k", 4, 2**60, b"")], [], 0), "array items"),
        (gguf([array("k", 8, 50, b"")], [], 400), "architecture"),
        (gguf([text("general.name", "x")], [], 0), "architecture"),
        (gguf([*LLAMA, u32("general.alignment", 0)], TENSORS, DATA_BYTES), "alignment"),
        (gguf([*LLAMA, u32("general.alignment", 48)], TENSORS, DATA_BYTES), "alignment is 48"),
        (gguf([*LLAMA, text("general.alignment", "32")], TENSORS, DATA_BYTES), "is of type 8"),
        (gguf([*LLAMA, u32("k", 1), u32("k", 2)], TENSORS, DATA_BYTES), "has 'k' twice"),
        (gguf([*LLAMA, u32("", 1)], TENSORS, DATA_BYTES), "empty key"),
        (gguf([*LLAMA, array("k", 8, 2**23 + 1, b"")], TENSORS, 2**25), "more than 8388608 texts"),
        (gguf(LLAMA, [string("t") + struct.pack("<I", 200)], 0), "200 dimensions"),
        (gguf(LLAMA, [tensor("t", (2**40, 2**40), 0, 0)], 0), "impossible shape"),
        (gguf(LLAMA, [tensor("t", (8, 0), 0, 0)], 0), "impossible shape"),
        (gguf(LLAMA, [tensor("t" * 64, (8,), 0, 0)], 32), "name of 64 bytes"),
        (gguf(LLAMA, [tensor("", (8,), 0, 0)], 32), "name of 0 bytes"),
        (gguf(LLAMA, [tensor("t", (8,), 0, 0), tensor("t", (8,), 0, 32)], 64), "'t' is there twice"),
        (gguf(LLAMA, [tensor("t", (8,), 4, 0)], 64), "of type 4, which is not known"),
        (gguf(LLAMA, [tensor("t", (2**31,), 2**31, 0)], 64), "which is not known"),
        (gguf(LLAMA, [tensor("t", (40, 2), 8, 0)], 400), "rows of 40 elements, which Q8_0 cannot hold"),
        (gguf(LLAMA, [tensor("blk.0.attn_q.weight", (64, 2), 26, 0)], 512), "I32, which a model cannot compute with"),
        (gguf(LLAMA, [tensor("blk.0.attn_norm.weight", (64,), 8, 0)], 96), "vectors are not quantized"),
        (gguf(LLAMA, [tensor("t", (8,), 0, 2**60)], 0), "truncated"),
        (gguf(LLAMA, [tensor("t", (8,), 0, 16)], 96), "where the tensors before it end at 0"),
        (gguf(LLAMA, [tensor("t", (8,), 0, 0), tensor("u", (8,), 0, 0)], 64), "the tensors before it end at 32"),
        (gguf(LLAMA, TENSORS, DATA_BYTES - 1), "truncated"),
    ],
)
def test_a_broken_file_is_refused_with_its_fault(write: Write, raw: bytes, fault: str) -> None:
    with pytest.raises(ModelFileError, match=fault) as caught:
        read_gguf(write(raw))
    assert "model.gguf" in caught.value.message


@settings(max_examples=300, deadline=timedelta(seconds=20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_in_a_file_it_is_read_or_refused_within_bounds(
    write: Write, llama_bytes: bytes, data: st.DataObject
) -> None:
    raw = bytearray(llama_bytes[: data.draw(st.integers(0, len(llama_bytes)))])
    for _ in range(data.draw(st.integers(0, 6))):
        if raw:
            raw[data.draw(st.integers(0, min(len(raw), 700) - 1))] = data.draw(st.integers(0, 255))
    path = write(bytes(raw))
    tracemalloc.start()
    try:
        file = read_gguf(path)
    except ModelFileError:
        return
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Nothing is taken for what a file merely claims to hold.
        assert peak < 20 * len(raw) + (1 << 20)
    assert file.cache_shape.bytes_per_cell >= 0
    assert isinstance(file.quantization, str)
    assert file.weight_bytes <= len(raw)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_always_refused(write: Write, llama_bytes: bytes, share: float) -> None:
    with pytest.raises(ModelFileError):
        read_gguf(write(llama_bytes[: int(share * len(llama_bytes))]))


def test_the_tensor_types_are_those_of_the_format() -> None:
    kinds = {int(each) for each in reference.GGMLQuantizationType}
    inner = {9, 15}  # Q8_1 and Q8_K, which llama.cpp uses between operations and no file has.
    assert kinds - inner <= set(TENSOR_TYPES)
    for number in kinds - inner:
        kind = reference.GGMLQuantizationType(number)
        assert TENSOR_TYPES[number] == (kind.name, *reference.GGML_QUANT_SIZES[kind])


def test_the_names_of_file_types_are_those_of_the_format() -> None:
    for number, name in FILE_TYPES.items():
        assert reference.LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_") == name
