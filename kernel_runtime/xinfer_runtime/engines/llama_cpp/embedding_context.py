"""A typed surface over llama.cpp's API for vectors of texts. Belongs to one thread."""

import ctypes
import time
from collections.abc import Sequence
from typing import Any, Literal

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.catalog.model_kind import Pooling
from xinfer_runtime.engines.llama_cpp import native_log
from xinfer_runtime.engines.llama_cpp.context import allocated_bytes, flash_attention_type
from xinfer_runtime.engines.llama_cpp.embedding_sizing import EmbeddingSize
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.engines.llama_cpp.weights import Weights
from xinfer_runtime.errors import EngineError, ModelFileError

_POOLINGS: dict[Pooling, int] = {
    "mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama_cpp.LLAMA_POOLING_TYPE_CLS,
    "last": llama_cpp.LLAMA_POOLING_TYPE_LAST,
    "rank": llama_cpp.LLAMA_POOLING_TYPE_RANK,
}
_TWO_CLASSES = frozenset({"qwen3", "qwen3vl"})
"""Architectures whose reranker says how probable yes and no are, in this order."""

_SMALL_PASS = 64
"""Tokens below which a pass gets as few threads as one token: they would wait for each other more than they compute."""


class EmbeddingContext:
    """Computes the vectors of several inputs in one pass."""

    def __init__(
        self,
        weights: Weights,
        size: EmbeddingSize,
        pooling: Pooling,
        threads: ThreadChoice,
        flash_attention: Literal["auto", "on", "off"] = "auto",
    ) -> None:
        self._size = size
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = size.batch_tokens
        params.n_ubatch = size.pass_tokens
        params.n_seq_max = size.max_sequences
        params.embeddings = True
        params.pooling_type = _POOLINGS[pooling]
        params.kv_unified = True
        params.flash_attn_type = flash_attention_type(flash_attention)
        self._thread_choice = threads
        self._threads = params.n_threads = params.n_threads_batch = threads.threads(size.batch_tokens)
        handle = llama_cpp.llama_init_from_model(weights.handle, params)
        if not handle:
            reason = native_log.errors() or "no reason was given"
            raise EngineError(f"llama.cpp could not make a context of {size.batch_tokens} tokens: {reason}")
        self._handle: int = handle
        self._memory = llama_cpp.llama_get_memory(handle)
        self.memory_bytes = allocated_bytes()
        ranks = pooling == "rank"
        self.dimensions: int = (
            llama_cpp.llama_model_n_cls_out(weights.handle)
            if ranks
            else llama_cpp.llama_model_n_embd_out(weights.handle)
        )
        self.squashed = ranks and weights.architecture in _TWO_CLASSES
        """Whether scores are from 0 to 1 as they come."""
        if ranks and self.dimensions != 1 and not self.squashed:
            self.free()
            raise ModelFileError(
                f"This model tells {self.dimensions} classes apart, which is no ranking", param="model_path"
            )
        self._make_batch(size.batch_tokens)

    def _make_batch(self, tokens: int) -> None:
        self._token = np.zeros(tokens, dtype=np.int32)
        self._position = np.zeros(tokens, dtype=np.int32)
        self._sequence = np.zeros(tokens, dtype=np.int32)
        self._sequence_count = np.ones(tokens, dtype=np.int32)
        self._wants_output = np.ones(tokens, dtype=np.int8)
        address, stride = self._sequence.ctypes.data, self._sequence.itemsize
        self._sequence_pointers = np.arange(address, address + tokens * stride, stride, dtype=np.uintp)
        int32_pointer = ctypes.POINTER(ctypes.c_int32)
        batch: Any = llama_cpp.llama_batch()
        batch.token = self._token.ctypes.data_as(int32_pointer)
        batch.pos = self._position.ctypes.data_as(int32_pointer)
        batch.n_seq_id = self._sequence_count.ctypes.data_as(int32_pointer)
        batch.seq_id = self._sequence_pointers.ctypes.data_as(ctypes.POINTER(int32_pointer))
        batch.logits = self._wants_output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        self._batch = batch

    def compute(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The vectors of the inputs, shape (inputs, dimensions): at most `max_sequences` of at most `batch_tokens`
        tokens together.

        Raises EngineError with llama.cpp's code where it cannot.
        """
        count = sum(map(len, inputs))
        self._token[:count] = np.concatenate([np.asarray(each, dtype=np.int32) for each in inputs])
        lengths = [len(each) for each in inputs]
        self._position[:count] = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        self._sequence[:count] = np.repeat(np.arange(len(inputs), dtype=np.int32), lengths)
        self._batch.n_tokens = count
        self._set_threads(count)
        started, cpu = time.perf_counter(), time.process_time()
        code = self._run()
        self._observe(count, time.perf_counter() - started, time.process_time() - cpu)
        if code != 0:
            raise EngineError(f"llama.cpp could not compute a batch (code {code})")
        vectors = np.empty((len(inputs), self.dimensions), dtype=np.float32)
        for index in range(len(inputs)):
            pointer = llama_cpp.llama_get_embeddings_seq(self._handle, index)
            if not pointer:
                raise EngineError("llama.cpp computed no vector")
            vectors[index] = np.ctypeslib.as_array(pointer, shape=(self.dimensions,))
        return vectors

    def _run(self) -> int:
        if not self._memory:
            return int(llama_cpp.llama_encode(self._handle, self._batch))
        llama_cpp.llama_memory_clear(self._memory, False)
        return int(llama_cpp.llama_decode(self._handle, self._batch))

    def use_threads(self, threads: ThreadChoice) -> None:
        """Compute with these numbers of threads from now on."""
        self._thread_choice = threads

    def _set_threads(self, tokens: int) -> None:
        # All but small passes take as long per token, so what was measured with one goes for all.
        threads = self._thread_choice.threads(1 if tokens < _SMALL_PASS else self._size.token_budget)
        if threads != self._threads:
            llama_cpp.llama_set_n_threads(self._handle, threads, threads)
            self._threads = threads

    def _observe(self, tokens: int, seconds: float, cpu_seconds: float) -> None:
        if tokens >= _SMALL_PASS:
            budget = self._size.token_budget
            scale = budget / tokens
            self._thread_choice.observe(budget, self._threads, seconds * scale, cpu_seconds * scale)

    def free(self) -> None:
        llama_cpp.llama_free(self._handle)
