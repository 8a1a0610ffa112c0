"""The division of a step among passes, and that nobody can tell from the logits."""

from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.context import DECODED, NO_CELLS, Chunk, Context
from xinfer_runtime.engines.llama_cpp.offload import Offload
from xinfer_runtime.engines.llama_cpp.passes import SteadyWidth, in_passes
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.engines.llama_cpp.weights import load_weights


@given(st.lists(st.integers(1, 100), min_size=1, max_size=200), st.integers(2, 70))
def test_every_chunk_is_in_one_pass_and_no_tile_mixes_sequences_that_decode(lengths: list[int], tile: int) -> None:
    passes = in_passes(lengths, tile)
    assert sorted(index for indexes in passes for index in indexes) == list(range(len(lengths)))
    for indexes in passes:
        assert indexes
        assert sum(lengths[index] for index in indexes) < tile or all(lengths[index] > 1 for index in indexes)


def test_one_pass_where_tiles_do_not_matter() -> None:
    assert in_passes([1] * 100, None) == in_passes([1] * 100, 101) == [list(range(100))]


def test_a_split_cache_gets_a_pass_for_each_length() -> None:
    assert in_passes([1, 30, 1, 30, 7, 1], None, split=True) == [[0, 2, 5], [4], [1, 3]]


def test_the_width_follows_a_crowd_at_once_and_its_end_late() -> None:
    width = SteadyWidth(100)
    assert [width.of(count) for count in (3, 5, 9, 13, 17, 40, 65, 99, 100)] == [4, 6, 12, 16, 24, 48, 96, 100, 100]
    assert [width.of(2) for _ in range(32)] == [100] * 32
    assert [width.of(99), *(width.of(2) for _ in range(32))] == [100] * 33
    assert width.of(2) == 2


def test_padding_changes_neither_logits_nor_what_idle_streams_hold(tiny_model: Path) -> None:
    weights = load_weights(tiny_model, Offload(), lambda _: True)
    padded, plain = (
        Context(weights, 6 * 256, 5, 300, ThreadChoice(1, 1), split=True, padding=padding) for padding in (True, False)
    )
    for context in (padded, plain):
        for slot in range(5):
            context.compact([slot], list(range(5)))
            assert context.decode([Chunk(slot, 0, [65 + slot] * (10 + slot), 1)]) == DECODED
    for position in range(3):
        rows = []
        for context in (padded, plain):
            context.compact([4, 2, 1], [4, 2, 1])
            slots = sorted((4, 2, 1), key=context.rank)
            assert context.decode([Chunk(slot, 10 + slot + position, [66], 1) for slot in slots]) == DECODED
            rows.append(context.logits(3)[np.argsort(slots)].copy())
        np.testing.assert_allclose(rows[0], rows[1], rtol=1e-3, atol=1e-4)
    for slot in (0, 3):  # They go on where they were, as if nothing had been in between.
        rows = []
        for context in (padded, plain):
            context.compact([slot], [slot])
            assert context.decode([Chunk(slot, 10 + slot, [67], 1)]) == DECODED
            rows.append(context.logits(1).copy())
        np.testing.assert_allclose(rows[0], rows[1], rtol=1e-3, atol=1e-4)
    for context in (padded, plain):
        context.free()
    weights.free()


def test_when_there_are_not_enough_cells_nothing_changes(tiny_model: Path) -> None:
    weights = load_weights(tiny_model, Offload(), lambda _: True)
    context = Context(weights, 256, 8, 300, ThreadChoice(1, 1))
    assert context.decode([Chunk(0, 0, [65] * 245, 1)]) == DECODED
    assert context.decode([*(Chunk(slot, 0, [66], 1) for slot in range(1, 6)), Chunk(6, 0, [67] * 20, 1)]) == (NO_CELLS)
    assert context.decode([Chunk(slot, 0, [66] * 2, 1) for slot in range(1, 6)]) == DECODED
    context.free()
    weights.free()


@pytest.mark.parametrize(("cells", "split"), [(6 * 256, True), (1024, False), (256, False)])
def test_after_warming_up_the_cache_is_empty(tiny_model: Path, cells: int, split: bool) -> None:
    weights = load_weights(tiny_model, Offload(), lambda _: True)
    context = Context(weights, cells, 100 if cells == 256 else 5, 300, ThreadChoice(1, 1), split=split, padding=True)
    context.warm_up(100 if cells == 256 else 4, 300)
    assert [llama_cpp.llama_memory_seq_pos_max(context._memory, stream) for stream in range(5)] == [-1] * 5
    context.free()
    weights.free()
