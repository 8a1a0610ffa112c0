"""Sequences that leave for another replica, and those that come from one: between cells and `SequenceState`."""

from collections.abc import Sequence

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np

from xinfer_runtime.engines.llama_cpp.context import Context
from xinfer_runtime.engines.llama_cpp.prefix_file import holds_cells_of
from xinfer_runtime.engines.llama_cpp.prefix_store import SavedPrefix
from xinfer_runtime.engines.llama_cpp.sizing import WORTH_MOVING
from xinfer_runtime.engines.llama_cpp.token_sequence import TokenSequence
from xinfer_runtime.engines.sequence_state import MOVED_BYTES, SequenceState


def read_sequence(context: Context, sequence: TokenSequence) -> SavedPrefix | None:
    """What is computed of a running sequence; None where that is little, or too much to be moved, or of images, whose
    ids fit into no token.
    """
    if sequence.computed < WORTH_MOVING or sequence.images:
        return None
    size = context.state_bytes(sequence.slot)
    state = context.state(sequence.slot, size) if size + 4 * sequence.computed <= MOVED_BYTES else None
    if state is None or not holds_cells_of(state, sequence.computed, split=True):
        return None
    return SavedPrefix(sequence.adapter, np.asarray(sequence.tokens[: sequence.computed], dtype=np.int32), state)


def to_state(moved: SavedPrefix, identity: str) -> SequenceState:
    return SequenceState(
        identity=identity,
        adapter=moved.adapter,
        tokens=moved.tokens.data.cast("B"),
        cells=moved.state.data,
    )


def from_state(state: SequenceState, identity: str, adapter: str, tokens: Sequence[int]) -> SavedPrefix | None:
    """The cells of the first of these tokens, all but the last one at most; None if the state is of anything else."""
    theirs = np.frombuffer(state.tokens, dtype=np.int32)
    count = len(theirs)
    if (
        not identity
        or (state.identity, state.adapter) != (identity, adapter)
        or not 0 < count < len(tokens)
        or not np.array_equal(theirs, np.asarray(tokens[:count], dtype=np.int32))
    ):
        return None
    cells = np.frombuffer(state.cells, dtype=np.uint8)
    return SavedPrefix(adapter, theirs, cells) if holds_cells_of(cells, count, split=True) else None
