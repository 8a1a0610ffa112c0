"""Cells on their way between the KV cache and the store of evicted prefixes. Runs on the engine loop's thread."""

from collections.abc import Sequence

import numpy as np

from xinfer_runtime.engines.llama_cpp.cell_operations import Operation, Remove, Save
from xinfer_runtime.engines.llama_cpp.model import Context
from xinfer_runtime.engines.llama_cpp.prefix_store import PrefixStore, SavedPrefix
from xinfer_runtime.engines.llama_cpp.sizing import COPIED_BYTES, WORTH_RESTORING


class PrefixSaving:
    """Saves what is evicted and restores it into the sequences of newcomers. A step begins no copy
    after `COPIED_BYTES` in its direction.

    `spare` is a sequence of the KV cache that nobody else uses: cells come back there first, so that a restoration
    that llama.cpp refuses changes nothing.
    """

    def __init__(self, context: Context, store: PrefixStore, spare: int) -> None:
        self._context = context
        self.store = store
        self._spare = spare
        self._to_save = self._to_restore = COPIED_BYTES

    def begin(self) -> None:
        """A step begins."""
        self._to_save = self._to_restore = COPIED_BYTES

    def change(self, operations: Sequence[Operation | Save]) -> None:
        """Carry out operations, in their order."""
        for operation in operations:
            if isinstance(operation, Save):
                self._save(operation)
            else:
                self._context.change([operation])

    def find(self, adapter: str, tokens: Sequence[int], computed: int) -> tuple[SavedPrefix, int] | None:
        """What was saved of a sequence that holds the cells of its first `computed` tokens, and how many tokens of it
        are the sequence's; None where that is not worth its restoration.
        """
        found = self.store.longest(adapter, tokens)
        if found is None or found[1] < computed + WORTH_RESTORING or self._to_restore <= 0:
            return None
        return found

    def restore(self, prefix: SavedPrefix, slot: int, start: int, end: int) -> bool:
        """Give a sequence the cells of these positions. False, and none, if llama.cpp has no room for the prefix."""
        self._to_restore -= prefix.bytes
        done = self._context.put_state(self._spare, prefix.state)
        if done:
            self._context.share(self._spare, slot, start, end)
        self._context.change([Remove(self._spare, 0)])
        return done

    def _save(self, operation: Save) -> None:
        if self._to_save <= 0 or self.store.covers(operation.adapter, operation.tokens):
            return
        size = self._context.state_bytes(operation.sequence)
        if size > self.store.capacity:
            return
        self._to_save -= size
        tokens = np.asarray(operation.tokens, dtype=np.int32)
        state = self._context.state(operation.sequence, size)
        if state is not None:
            self.store.put(SavedPrefix(operation.adapter, tokens, state))
