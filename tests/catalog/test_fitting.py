"""A context and a cache that fit into what is free."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from xinfer_runtime.catalog.fitting import LEAST_CONTEXT, fit
from xinfer_runtime.catalog.forecast import forecast
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.models import ModelSpec

from .conftest import DATA_BYTES, LLAMA, TENSORS, gguf, u32

SPEC = ModelSpec(uid="m", name="m")


@pytest.fixture
def file(write: Callable[[bytes], Path]) -> GgufFile:
    """A model of a cell of 192 bytes, trained for 65,536 tokens."""
    entries = [each for each in LLAMA if b"context_length" not in each]
    return read_gguf(write(gguf([*entries, u32("llama.context_length", 65536)], TENSORS, DATA_BYTES)))


def without_cache(file: GgufFile) -> int:
    return forecast(file, SPEC).total - forecast(file, SPEC).kv_cache


def test_with_room_a_launch_gets_all_that_it_likes(file: GgufFile) -> None:
    found = fit(file, SPEC, room=1 << 40)
    assert found == fit(file, SPEC, room=None)
    assert (found.context_length, found.engine_options) == (32768, {})
    assert found.memory_bytes == forecast(file, found).total


def test_a_processor_needs_less_for_its_smaller_passes(file: GgufFile) -> None:
    sizes = [fit(file, SPEC, None, on_gpu=each).memory_bytes for each in (None, True, False)]
    assert sizes[0] == sizes[1] > sizes[2]
    assert sizes[2] == fit(file, replace(SPEC, n_gpu=0), None).memory_bytes


def test_with_less_room_the_cache_gets_smaller_and_the_context_with_it(file: GgufFile) -> None:
    room = without_cache(file) + 10_000 * file.cache_shape.bytes_per_cell
    found = fit(file, SPEC, room)
    assert (found.context_length, found.engine_options) == (9984, {"kv_cells": 9984})
    assert found.memory_bytes == forecast(file, found).total <= room


def test_a_context_that_the_launch_names_stays_while_the_cache_gets_smaller(file: GgufFile) -> None:
    room = without_cache(file) + 10_000 * file.cache_shape.bytes_per_cell
    found = fit(file, replace(SPEC, context_length=9000), room)
    assert (found.context_length, found.engine_options) == (9000, {"kv_cells": 9984})


@pytest.mark.parametrize("context_length", [None, 20_000])
def test_what_cannot_fit_is_left_for_placement_to_refuse(file: GgufFile, context_length: int | None) -> None:
    spec = replace(SPEC, context_length=context_length)
    room = without_cache(file) + (LEAST_CONTEXT - 256) * file.cache_shape.bytes_per_cell
    found = fit(file, spec, room)
    assert found == fit(file, spec, room=None)
    assert found.memory_bytes > room


def test_replicas_share_the_room_where_all_of_them_can(file: GgufFile) -> None:
    each = without_cache(file) + 4096 * file.cache_shape.bytes_per_cell
    found = fit(file, replace(SPEC, replica=2), 2 * each)
    assert found.context_length == 4096
    # One alone can have what two cannot.
    assert fit(file, replace(SPEC, replica=2), each).context_length == 4096


def test_fewer_bits_make_room_for_more_context(file: GgufFile) -> None:
    entries = [each for each in LLAMA if b"embedding_length" not in each and b"context_length" not in each]
    wide = [*entries, u32("llama.context_length", 65536), u32("llama.embedding_length", 128)]
    path = file.path.with_name("wide.gguf")
    path.write_bytes(gguf(wide, TENSORS, DATA_BYTES))
    model = read_gguf(path)
    room = forecast(model, SPEC).total - forecast(model, SPEC).kv_cache + (2 << 20)
    plain = fit(model, SPEC, room).context_length
    quantized = fit(model, replace(SPEC, engine_options={"cache_type_k": "q8_0", "cache_type_v": "q8_0"}), room)
    assert plain is not None
    assert quantized.context_length is not None
    assert quantized.context_length > 1.8 * plain
