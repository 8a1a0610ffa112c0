"""Embedding models and rerankers as the replica sees them: asyncio on one side, the computing thread on the other.

As in the engine for text, a request passes three threads: `submit` on the event loop, its tokenization on the preparing
thread, its tokens on the loop that computes.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from queue import SimpleQueue

import msgspec

from xinfer_runtime.engines.base import EmitStep, Engine, ReportProgress
from xinfer_runtime.engines.llama_cpp.embedding_loading import LoadedEmbedder, load_embedder
from xinfer_runtime.engines.llama_cpp.embedding_loop import (
    Abort,
    Command,
    EmbeddingLoop,
    Outcome,
    Start,
    Stop,
    UseThreads,
)
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.vectors import check_dimensions
from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.errors import EngineError, ErrorInfo, InvalidRequest, XinferError
from xinfer_runtime.messages import Delta, EmbedRequest, ReplicaRequest
from xinfer_runtime.models import EngineStats, ModelInfo, ModelSpec

logger = logging.getLogger(__name__)


class EmbeddingEngine(Engine):
    """One GGUF embedding model or reranker."""

    def __init__(self) -> None:
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._tickets = count()
        self._ticket_of: dict[str, int] = {}
        self._live: dict[int, str] = {}
        self._preparing = 0
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="xinfer-prepare")
        self._thread: threading.Thread | None = None
        self._model: LoadedEmbedder | None = None
        self._loop: EmbeddingLoop | None = None
        self._cores: int | None = None
        self._closing = False
        self._ended: ErrorInfo | None = None
        """Why no request can run any more."""

    async def load(self, spec: ModelSpec, emit: EmitStep, progress: ReportProgress) -> ModelInfo:
        options = Options.of(spec)
        self._event_loop = asyncio.get_running_loop()
        self._emit = emit
        loaded: asyncio.Future[ModelInfo] = self._event_loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(spec, options, progress, loaded), name="xinfer-embed", daemon=True
        )
        self._thread.start()
        try:
            return await loaded
        except asyncio.CancelledError:
            self._closing = True  # Ends the load at its next report of progress.
            self._commands.put(Stop())
            raise

    def use_cores(self, cores: int) -> None:
        self._cores = cores
        if self._model is not None:
            self._commands.put(UseThreads(self._model.threads(cores)))

    def submit(self, request: ReplicaRequest, state: SequenceState | None = None) -> None:
        del state  # Nothing is generated: there is none.
        self.abort(request.id)
        ticket = next(self._tickets)
        self._ticket_of[request.id] = ticket
        self._live[ticket] = request.id
        if self._ended is None and not self._closing and self._loop is not None:
            self._preparing += 1
            self._preparer.submit(self._prepare, ticket, request)
        else:
            error = self._ended or EngineError("The engine is not running").info
            self._event_loop.call_soon(self._deliver, [(ticket, Delta(id=request.id, error=error))])

    def abort(self, request_id: str) -> None:
        ticket = self._ticket_of.pop(request_id, None)
        if ticket is not None:
            del self._live[ticket]
            self._commands.put(Abort(ticket))

    def stats(self) -> EngineStats:
        if self._loop is None:
            return EngineStats()
        counts = self._loop.counts
        return msgspec.structs.replace(
            counts, waiting=counts.waiting + self._preparing, tokens_per_second=self._loop.throughput.rate()
        )

    async def close(self) -> None:
        self._closing = True
        await asyncio.to_thread(self._preparer.shutdown, wait=True, cancel_futures=True)
        self._commands.put(Stop())
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._end(EngineError("The replica was stopped while this request ran").info)

    # ---- on the event loop's thread

    def _deliver(self, outcomes: list[Outcome]) -> None:
        deltas = []
        for ticket, delta in outcomes:
            if ticket in self._live:  # Else aborted since.
                deltas.append(delta)
                if delta.last:
                    del self._ticket_of[self._live.pop(ticket)]
        if deltas:
            self._emit(deltas)

    def _prepared(self) -> None:
        self._preparing -= 1

    def _end(self, error: ErrorInfo) -> None:
        self._ended = error
        self._deliver([(ticket, Delta(id=request_id, error=error)) for ticket, request_id in self._live.items()])

    # ---- on the preparing thread

    def _prepare(self, ticket: int, request: ReplicaRequest) -> None:
        try:
            if ticket in self._live:
                self._start(ticket, request)
        except XinferError as error:
            self._post(self._deliver, [(ticket, Delta(id=request.id, error=error.info))])
        except RecursionError:
            info = InvalidRequest("The request is nested too deeply for the model's chat template.").info
            self._post(self._deliver, [(ticket, Delta(id=request.id, error=info))])
        except Exception as error:  # The request's own failure, whatever it is: the next one is prepared as usual.
            logger.exception("Preparing a request failed")
            info = EngineError(f"The request could not be prepared: {type(error).__name__}: {error}").info
            self._post(self._deliver, [(ticket, Delta(id=request.id, error=info))])
        finally:
            self._post(self._prepared)

    def _start(self, ticket: int, request: ReplicaRequest) -> None:
        model = self._model
        assert model is not None
        if isinstance(request, EmbedRequest):
            check_dimensions(request, model.context.dimensions)
            self._commands.put(Start(ticket, request, model.inputs.build(request)))
        elif request.tokenize is not None or request.detokenize:
            answer = (
                model.prompts.detokenization(request) if request.detokenize else model.prompts.tokenization(request)
            )
            self._post(self._deliver, [(ticket, answer)])
        else:
            raise InvalidRequest("This model makes vectors and generates no text.", param="model")

    # ---- on the computing thread

    def _run(
        self, spec: ModelSpec, options: Options, progress: ReportProgress, loaded: "asyncio.Future[ModelInfo]"
    ) -> None:
        def proceed(fraction: float, stage: str) -> bool:
            self._post(progress, fraction, stage)
            return not self._closing

        try:
            model = self._model = load_embedder(spec, options, proceed, self._cores)
        except Exception as error:
            self._post(_reject, loaded, error)
            return
        try:
            self._loop = EmbeddingLoop(
                model.context, model.queue(), self._commands, self._live.__contains__, self._publish
            )
            self._post(_resolve, loaded, model.info)
            if self._cores is not None:  # It may have changed during the load.
                self._commands.put(UseThreads(model.threads(self._cores)))
            self._loop.run()
        except BaseException as error:
            logger.exception("The loop of the embedding engine ended")
            self._post(self._end, EngineError(f"The engine loop ended: {type(error).__name__}: {error}").info)
        finally:
            model.free()

    def _publish(self, outcomes: list[Outcome]) -> None:
        self._post(self._deliver, outcomes)

    def _post(self, function: Callable[..., None], *args: object) -> None:
        """Call the function on the event loop's thread."""
        try:
            self._event_loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._event_loop.is_closed():
                raise
            # Whoever listened is gone without closing the engine: nothing is left to work for.
            self._closing = True
            self._commands.put(Stop())


def _resolve(future: "asyncio.Future[ModelInfo]", value: ModelInfo) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: "asyncio.Future[ModelInfo]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
