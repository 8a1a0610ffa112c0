"""A typed surface over the part of llama.cpp's C API that the engine computes with: decode, logits, KV cells, free.

Everything here belongs to one thread. Nothing here decides anything.
"""

import ctypes
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

import llama_cpp
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp import native_log
from xinfer_runtime.engines.llama_cpp.adapters import NO_ADAPTER, Adapters
from xinfer_runtime.engines.llama_cpp.cell_operations import Operation, Remove, Share
from xinfer_runtime.engines.llama_cpp.passes import SteadyWidth, in_passes
from xinfer_runtime.engines.llama_cpp.sizing import CacheType
from xinfer_runtime.engines.llama_cpp.streams import Copy, StreamOperation, Streams
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.engines.llama_cpp.weights import Weights
from xinfer_runtime.errors import EngineError

DECODED = 0
NO_CELLS = 1

_GGML_TYPES: dict[CacheType, int] = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}

_BUFFER_LINE = re.compile(r"buffer size\s*=\s*([0-9.]+) MiB")

_CELLS_PADDED_TO = 256
"""llama.cpp computes attention over a multiple of so many cells of every stream, as the longest one needs."""


class Chunk(Struct, frozen=True):
    """Consecutive tokens of one sequence in a batch: `tokens[i]` is at position `start + i` of sequence `slot`."""

    slot: int
    start: int
    tokens: Sequence[int]
    rows: int
    """After how many of its tokens, the last ones, the logits are needed."""
    values: NDArray[np.float32] | None = None
    """What is computed in place of the tokens, shape (tokens, width of the model). It has a pass to itself."""


class Context:
    """A KV cache for `kv_sequences` over some weights, and the forward pass. Belongs to one thread.

    `split` gives every sequence an equal part of the cells for itself; else all share all of them. A pass gives a row
    of logits for each sequence, and `draft_rows` more. With `padding`, for a split cache on a GPU, passes over one
    token each are filled up with tokens that nobody needs, so that they have few different shapes.
    """

    def __init__(
        self,
        weights: Weights,
        cells: int,
        kv_sequences: int,
        token_budget: int,
        threads: ThreadChoice,
        attention_tile: int | None = None,
        split: bool = False,
        cache_types: tuple[CacheType, CacheType] = ("f16", "f16"),
        flash_attention: Literal["auto", "on", "off"] = "auto",
        adapters: Adapters | None = None,
        draft_rows: int = 0,
        padding: bool = False,
    ) -> None:
        self._adapters = adapters
        self._adapter = NO_ADAPTER
        self._streams = Streams(kv_sequences) if split else None
        self._width = SteadyWidth(kv_sequences) if split and padding else None
        self._running = 0
        self._copies_pending = False
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = token_budget
        params.n_seq_max = self._streams.count if self._streams is not None else kv_sequences
        # One row of logits per sequence: the default keeps room for a row per token, 300 MB with a large vocabulary.
        params.n_outputs_max = params.n_seq_max + draft_rows
        self._thread_choice = threads
        self._threads = params.n_threads = params.n_threads_batch = threads.threads(1)
        params.flash_attn_type = flash_attention_type(flash_attention)
        keys, values = cache_types
        if keys != "f16":
            params.type_k = _GGML_TYPES[keys]
        if values != "f16":
            params.type_v = _GGML_TYPES[values]
        params.kv_unified = not split
        handle = llama_cpp.llama_init_from_model(weights.handle, params)
        if not handle:
            reason = native_log.errors() or "no reason was given"
            raise EngineError(f"llama.cpp could not make a context of {cells} tokens: {reason}")
        self._handle: int = handle
        self._memory = llama_cpp.llama_get_memory(handle)
        self._attention_tile = attention_tile
        self._vocab_size = weights.vocabulary.size
        self.cells: int = llama_cpp.llama_n_ctx(handle)
        self._stream_cells: int = llama_cpp.llama_n_ctx_seq(handle)
        self.memory_bytes = allocated_bytes()

        self._token = np.zeros(token_budget, dtype=np.int32)
        self._position = np.zeros(token_budget, dtype=np.int32)
        self._slot = np.zeros(token_budget, dtype=np.int32)
        self._slot_count = np.ones(token_budget, dtype=np.int32)
        self._wants_logits = np.zeros(token_budget, dtype=np.int8)
        address, stride = self._slot.ctypes.data, self._slot.itemsize
        self._slot_pointers = np.array([address + i * stride for i in range(token_budget)], dtype=np.uintp)
        self._batch = self._batch_over_arrays()

    def _batch_over_arrays(self) -> Any:
        int32_pointer = ctypes.POINTER(ctypes.c_int32)
        batch: Any = llama_cpp.llama_batch()
        batch.n_tokens = 0
        batch.token = self._token.ctypes.data_as(int32_pointer)
        batch.pos = self._position.ctypes.data_as(int32_pointer)
        batch.n_seq_id = self._slot_count.ctypes.data_as(int32_pointer)
        batch.seq_id = self._slot_pointers.ctypes.data_as(ctypes.POINTER(int32_pointer))
        batch.logits = self._wants_logits.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return batch

    @property
    def adapter(self) -> str:
        """What passes are computed with."""
        return self._adapter

    def use_adapter(self, name: str) -> None:
        """Compute with this adapter from the next pass on. Raises EngineError if llama.cpp cannot."""
        if name != self._adapter:
            assert self._adapters is not None
            self._adapters.use(self._handle, name)
            self._adapter = name

    def passes(self, lengths: Sequence[int]) -> list[list[int]]:
        """How chunks of so many tokens, in the order of their `rank`, are best divided among calls of `decode`."""
        return in_passes(lengths, self._attention_tile, self._streams is not None)

    def decode(self, chunks: Sequence[Chunk]) -> int:
        """Compute the chunks, in the order of their `rank`. Returns DECODED, NO_CELLS (nothing changed), or llama.cpp's
        error code.

        On a GPU it returns before the values are there; `logits` waits for them.
        """
        if chunks[0].values is not None:
            return self._decode_values(chunks[0], chunks[0].values)
        ones = [1] * len(chunks)
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        if [len(chunk.tokens) for chunk in chunks] == ones == [chunk.rows for chunk in chunks]:
            # As most passes are, and a GPU waits for them.
            tokens = [chunk.tokens[0] for chunk in chunks]
            positions = [chunk.start for chunk in chunks]
            slots = [self.rank(chunk.slot) for chunk in chunks]
            self._wants_logits[: len(tokens)] = 1
        else:
            self._wants_logits[:] = 0
            for chunk in chunks:
                tokens += chunk.tokens
                positions += range(chunk.start, chunk.start + len(chunk.tokens))
                slots += [self.rank(chunk.slot)] * len(chunk.tokens)
                self._wants_logits[len(tokens) - chunk.rows : len(tokens)] = 1
        padding = self._idle_ends(slots, max(positions)) if len(tokens) == len(chunks) else []
        for stream, position in padding:
            self._wants_logits[len(tokens)] = 1
            tokens.append(tokens[0])
            positions.append(position)
            slots.append(stream)
        count = len(tokens)
        self._token[:count] = tokens
        self._position[:count] = positions
        self._slot[:count] = slots
        code = self._compute(self._batch, count)
        # Whatever became of the pass: one that failed may have left cells too.
        for stream, position in padding:
            self._remove(Remove(stream, position))
        return code

    def _decode_values(self, chunk: Chunk, values: NDArray[np.float32]) -> int:
        count = len(values)
        self._position[:count] = range(chunk.start, chunk.start + count)
        self._slot[:count] = self.rank(chunk.slot)
        self._wants_logits[:count] = 0
        self._wants_logits[count - chunk.rows : count] = 1
        values = np.ascontiguousarray(values)
        batch = self._batch_over_arrays()
        batch.token = None
        batch.embd = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return self._compute(batch, count)

    def _compute(self, batch: Any, count: int) -> int:
        batch.n_tokens = count
        threads = self._thread_choice.threads(count)
        if threads != self._threads:
            llama_cpp.llama_set_n_threads(self._handle, threads, threads)
            self._threads = threads
        started, cpu = time.perf_counter(), time.process_time()
        code = int(llama_cpp.llama_decode(self._handle, batch))
        self._thread_choice.observe(count, threads, time.perf_counter() - started, time.process_time() - cpu)
        self._copies_pending &= code != DECODED
        return code

    def _idle_ends(self, busy: Sequence[int], longest: int) -> list[tuple[int, int]]:
        """The next streams after these, with the position after all that each holds.

        None if one of them is full, or so long that the pass would go over more cells of every stream.
        """
        if self._width is None or busy[-1] != len(busy) - 1:
            return []  # With adapters there are several passes, and this is not the one over the first streams.
        cells = min((longest // _CELLS_PADDED_TO + 1) * _CELLS_PADDED_TO, self._stream_cells)
        last = llama_cpp.llama_memory_seq_pos_max
        idle = range(len(busy), self._width.of(max(self._running, len(busy))))
        ends = [(stream, last(self._memory, stream) + 1) for stream in idle]
        return ends if all(position < cells for _, position in ends) else []

    def logits(self, rows: int) -> NDArray[np.float32]:
        """Logits after the last `decode`, shape (rows, vocabulary): the rows that the chunks wanted, in their order.

        A view of llama.cpp's buffer: valid, and writable, until the next `decode`.
        """
        pointer = llama_cpp.llama_get_logits(self._handle)
        return np.ctypeslib.as_array(pointer, shape=(rows, self._vocab_size))

    def rank(self, slot: int) -> int:
        """Where the sequence lies among all in the cache."""
        return slot if self._streams is None else self._streams.of(slot)

    def change(self, operations: Sequence[Operation]) -> None:
        """Carry out the operations on the cells. Raises EngineError if the cache cannot."""
        if self._streams is not None:
            self._change_streams(self._streams.change(operations))
            return
        for operation in operations:
            if isinstance(operation, Remove):
                self._remove(operation)
            elif isinstance(operation, Share):
                self._share(operation.source, operation.target, 0, operation.end)
            else:
                self._remove(Remove(operation.target, operation.start, operation.end))
                self._share(operation.source, operation.target, operation.start, operation.end)

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """Let `target`, which has none at these positions, have cells of `source`; in a cache that is not split."""
        self._share(source, target, start, end)

    def state_bytes(self, slot: int) -> int:
        """How large `state` will be."""
        return int(llama_cpp.llama_state_seq_get_size(self._handle, self.rank(slot)))

    def state(self, slot: int, size: int) -> NDArray[np.uint8] | None:
        """The cells of a sequence as llama.cpp writes them, `size` bytes; None while copies of streams are not made."""
        if self._copies_pending:
            return None
        state = np.empty(size, dtype=np.uint8)
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        written = llama_cpp.llama_state_seq_get_data(self._handle, pointer, size, self.rank(slot))
        return state if written == size else None

    def put_state(self, slot: int, state: NDArray[np.uint8]) -> bool:
        """Give a sequence the cells that `state` holds; False if there is no room for them, or it is no such state."""
        if self._streams is not None:
            self._streams.fill(slot)
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        read = int(llama_cpp.llama_state_seq_set_data(self._handle, pointer, state.nbytes, self.rank(slot)))
        return read == state.nbytes

    def use_threads(self, threads: ThreadChoice) -> None:
        """Choose from these numbers of threads from the next pass on."""
        self._thread_choice = threads

    def compact(self, decoding: Sequence[int], running: Sequence[int]) -> None:
        """Bring the running sequences side by side, those that decode first, where that makes a pass faster."""
        if self._streams is not None:
            self._running = len(running)
            self._change_streams(self._streams.compact(decoding))
            self._change_streams(self._streams.compact(running))

    def _change_streams(self, operations: Sequence[StreamOperation]) -> None:
        for operation in operations:
            if isinstance(operation, Copy):
                # llama.cpp copies nothing but all of a stream, when the next pass begins.
                self._share(operation.source, operation.target, -1, -1)
                self._copies_pending = True
                if operation.length is not None:
                    self._remove(Remove(operation.target, operation.length))
            else:
                self._remove(operation)

    def _share(self, source: int, target: int, start: int, end: int) -> None:
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, start, end)

    def _remove(self, operation: Remove) -> None:
        if not llama_cpp.llama_memory_seq_rm(self._memory, operation.sequence, operation.start, operation.end):
            raise EngineError(f"llama.cpp cannot free part of a sequence: {operation}")

    def warm_up(self, sequences: int, tokens: int) -> None:
        """Compute a prompt of so many tokens, and a few passes in which so many sequences decode, of no meaning.

        A GPU loads what computes a pass when it first needs it, which the first requests would wait for. Raises
        EngineError where it cannot, which is better said at the load than to a request.
        """
        sequences = max(1, min(sequences, self.cells // 3))
        room = self._stream_cells if self._streams is not None else self.cells // sequences
        length = max(1, min(tokens // sequences, room - 2))
        for start, count, rows in ((0, length, 0), (length, 1, 1), (length + 1, 1, 1)):
            code = self.decode([Chunk(slot, start, [0] * count, rows) for slot in range(sequences)])
            if code != DECODED:
                raise EngineError(f"llama.cpp could not compute a batch of {sequences * count} tokens (code {code})")
            if rows:
                self.logits(sequences)
        self.forget_all()

    def forget_all(self) -> None:
        """Free every cell."""
        llama_cpp.llama_memory_clear(self._memory, True)
        if self._streams is not None:
            self._streams.forget_all()

    def free(self) -> None:
        llama_cpp.llama_free(self._handle)


def flash_attention_type(wanted: Literal["auto", "on", "off"]) -> int:
    """llama.cpp's number for it."""
    types: dict[str, int] = {
        "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
        "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }
    return types[wanted]


def allocated_bytes() -> int:
    """Bytes of the buffers that llama.cpp reported since the load began: weights, KV cache, compute, outputs."""
    sizes = (_BUFFER_LINE.search(line) for line in native_log.lines())
    return int(sum(float(found[1]) for found in sizes if found) * (1 << 20))
