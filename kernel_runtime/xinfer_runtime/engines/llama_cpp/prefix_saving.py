"""Cells on their way between the KV cache and the store of evicted prefixes. Runs on the engine loop's thread."""

from collections.abc import Iterator, Sequence

import numpy as np

from xinfer_runtime.engines.llama_cpp.cell_operations import Operation, Remove, Save
from xinfer_runtime.engines.llama_cpp.context import Context
from xinfer_runtime.engines.llama_cpp.prefix_file import holds_cells_of
from xinfer_runtime.engines.llama_cpp.prefix_store import PrefixStore, SavedPrefix
from xinfer_runtime.engines.llama_cpp.scheduler import Scheduler
from xinfer_runtime.engines.llama_cpp.sizing import COPIED_BYTES, WORTH_RESTORING
from xinfer_runtime.engines.llama_cpp.token_sequence import Step


class PrefixSaving:
    """Saves what is evicted and restores it into the sequences of newcomers. A step begins no copy after
    `COPIED_BYTES` in its direction.

    `spare` is a sequence of the KV cache that nobody else uses: cells come back there first, so that a restoration
    that llama.cpp refuses changes nothing.
    """

    def __init__(self, context: Context, store: PrefixStore, spare: int) -> None:
        self._context = context
        self.store = store
        self._spare = spare
        self._to_save = self._to_restore = COPIED_BYTES

    def prepare(self, step: Step, scheduler: Scheduler) -> None:
        """Change the cache as the step needs it; who has just come gets back what was saved of its prefix."""
        self._to_save = self._to_restore = COPIED_BYTES
        self._change(step.operations)
        for new in step.admitted:
            found = self._find(new.adapter, new.tokens[: new.reusable], new.computed)
            if found is None:
                continue
            prefix, end = found
            self._change(scheduler.make_room(new, len(prefix.tokens)))
            if self._restore(prefix, new.slot, new.computed, end):
                scheduler.restored(step, new, end)

    def _change(self, operations: Sequence[Operation | Save]) -> None:
        """Carry out operations, in their order."""
        for operation in operations:
            if isinstance(operation, Save):
                self._save(operation)
            else:
                self._context.change([operation])

    def _find(self, adapter: str, tokens: Sequence[int], computed: int) -> tuple[SavedPrefix, int] | None:
        """What was saved of a sequence that holds the cells of its first `computed` tokens, and how many tokens of it
        are the sequence's; None where that is not worth its restoration.
        """
        found = self.store.longest(adapter, tokens)
        if found is None or found[1] < computed + WORTH_RESTORING or self._to_restore <= 0:
            return None
        return found

    def _restore(self, prefix: SavedPrefix, slot: int, start: int, end: int) -> bool:
        """Give a sequence the cells of these positions. False, and none, if llama.cpp has no room for the prefix."""
        self._to_restore -= prefix.bytes
        done = self._context.put_state(self._spare, prefix.state)
        if done:
            self._context.share(self._spare, slot, start, end)
        self._context.change([Remove(self._spare, 0)])
        return done

    def last_used_first(self, scheduler: Scheduler, most: int) -> Iterator[SavedPrefix]:
        """Prefixes that are in the cache, and then those in the store, for so many bytes at most. One at a time, so
        that nothing is held twice.
        """
        operations, resident = scheduler.resident()
        self._change(operations)
        in_cache = [each for each in resident if not self.store.covers(each.adapter, each.tokens)]
        both: list[Save | SavedPrefix] = [*in_cache, *self.store.last_used_first()]
        for each in both:
            prefix = self._read(each, most) if isinstance(each, Save) else each
            if prefix is not None and prefix.bytes <= most and holds_cells_of(prefix.state, len(prefix.tokens)):
                most -= prefix.bytes
                yield prefix

    def _save(self, operation: Save) -> None:
        if self._to_save <= 0 or self.store.covers(operation.adapter, operation.tokens):
            return
        prefix = self._read(operation, self.store.capacity)
        if prefix is not None:
            self._to_save -= prefix.bytes
            self.store.put(prefix)

    def _read(self, operation: Save, most: int) -> SavedPrefix | None:
        """The cells in the cache, unless they have more than `most` bytes."""
        size = self._context.state_bytes(operation.sequence)
        state = self._context.state(operation.sequence, size) if size <= most else None
        tokens = np.asarray(operation.tokens, dtype=np.int32)
        return SavedPrefix(operation.adapter, tokens, state) if state is not None else None
