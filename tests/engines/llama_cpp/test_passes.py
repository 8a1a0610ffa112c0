"""The division of a step among passes, and that nobody can tell from the logits."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.model import DECODED, NO_CELLS, Chunk, Context, load_weights
from xinfer_runtime.engines.llama_cpp.offload import Offload
from xinfer_runtime.engines.llama_cpp.passes import in_passes
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice


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


def test_when_there_are_not_enough_cells_nothing_changes(tiny_model: Path) -> None:
    weights = load_weights(tiny_model, Offload(), lambda _: True)
    context = Context(weights, 256, 8, 300, ThreadChoice(1, 1))
    assert context.decode([Chunk(0, 0, [65] * 245, 1)]) == DECODED
    assert context.decode([*(Chunk(slot, 0, [66], 1) for slot in range(1, 6)), Chunk(6, 0, [67] * 20, 1)]) == (NO_CELLS)
    assert context.decode([Chunk(slot, 0, [66] * 2, 1) for slot in range(1, 6)]) == DECODED
    context.free()
    weights.free()
