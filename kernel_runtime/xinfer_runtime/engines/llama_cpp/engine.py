"""The llama.cpp engine as the replica sees it: asyncio on one side, the engine loop's thread on the other.

A request passes three threads: `submit` on the event loop, its template and tokenization on the preparing thread (in
order of arrival, so that a long prompt delays neither the event loop nor a decode step), its tokens on the engine loop.
Outcomes come back with one `call_soon_threadsafe` per step.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import msgspec

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.locate import locate
from xinfer_runtime.chat.template import ChatTemplate
from xinfer_runtime.engines.base import EmitStep, Engine, ReportProgress
from xinfer_runtime.engines.llama_cpp import sizing
from xinfer_runtime.engines.llama_cpp.cores import threads_for, usable_cores
from xinfer_runtime.engines.llama_cpp.generation import Generation, TokenFacts
from xinfer_runtime.engines.llama_cpp.loop import Abort, Command, EngineLoop, Outcome, Start, Stop
from xinfer_runtime.engines.llama_cpp.model import Context, Weights, load_weights, supports_gpu
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.prompt import PromptBuilder
from xinfer_runtime.engines.llama_cpp.scheduler import Limits
from xinfer_runtime.errors import EngineError, ErrorInfo, InvalidRequest, XinferError
from xinfer_runtime.messages import Delta, EngineStats, GenerateRequest, ModelInfo, ModelSpec

logger = logging.getLogger(__name__)


class LlamaCppEngine(Engine):
    """One GGUF model. A request submitted under an id that is still running replaces that request."""

    def __init__(self) -> None:
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._tickets = count()
        self._ticket_of: dict[str, int] = {}
        self._live: dict[int, str] = {}
        self._preparing = 0
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="xinfer-prepare")
        self._thread: threading.Thread | None = None
        self._engine_loop: EngineLoop | None = None
        self._closing = False
        self._ended: ErrorInfo | None = None

    async def load(self, spec: ModelSpec, emit: EmitStep, progress: ReportProgress) -> ModelInfo:
        self._event_loop = asyncio.get_running_loop()
        self._emit = emit
        self._progress = progress
        loaded: asyncio.Future[ModelInfo] = self._event_loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(spec, loaded), name="xinfer-llama", daemon=True)
        self._thread.start()
        try:
            return await loaded
        except asyncio.CancelledError:
            self._closing = True  # Stops the load at its next progress report.
            self._commands.put(Stop())
            raise

    def submit(self, request: GenerateRequest) -> None:
        self.abort(request.id)
        ticket = next(self._tickets)
        self._ticket_of[request.id] = ticket
        self._live[ticket] = request.id
        if self._ended is not None or self._closing or self._engine_loop is None:
            error = self._ended or EngineError("The engine is not running").info
            self._event_loop.call_soon(self._deliver, [(ticket, Delta(id=request.id, error=error))])
            return
        self._preparing += 1
        self._preparer.submit(self._prepare, ticket, request)

    def abort(self, request_id: str) -> None:
        ticket = self._ticket_of.pop(request_id, None)
        if ticket is not None:
            del self._live[ticket]
            self._commands.put(Abort(ticket))

    def stats(self) -> EngineStats:
        if self._engine_loop is None:
            return EngineStats()
        counts = self._engine_loop.counts
        return msgspec.structs.replace(
            counts,
            waiting=counts.waiting + self._preparing,
            tokens_per_second=self._engine_loop.throughput.rate(),
        )

    async def close(self) -> None:
        self._closing = True
        await asyncio.to_thread(self._preparer.shutdown, wait=True, cancel_futures=True)
        self._commands.put(Stop())
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._fail_all(EngineError("The replica was stopped while this request ran").info)

    # On the event loop's thread.

    def _deliver(self, outcomes: list[Outcome]) -> None:
        deltas = []
        for ticket, delta in outcomes:
            if ticket not in self._live:
                continue  # Aborted since.
            deltas.append(delta)
            if delta.last:
                del self._ticket_of[self._live.pop(ticket)]
        if deltas:
            self._emit(deltas)

    def _prepared(self) -> None:
        self._preparing -= 1

    def _fail_all(self, error: ErrorInfo) -> None:
        self._ended = error
        self._deliver([(ticket, Delta(id=request_id, error=error)) for ticket, request_id in self._live.items()])

    # On the preparing thread.

    def _prepare(self, ticket: int, request: GenerateRequest) -> None:
        try:
            if ticket in self._live:
                self._start(ticket, request)
        except XinferError as error:
            self._post(self._deliver, [(ticket, Delta(id=request.id, error=error.info))])
        except Exception as error:
            logger.exception("Preparing a request failed")
            info = EngineError(f"The request could not be prepared: {type(error).__name__}: {error}").info
            self._post(self._deliver, [(ticket, Delta(id=request.id, error=info))])
        finally:
            self._post(self._prepared)

    def _start(self, ticket: int, request: GenerateRequest) -> None:
        prompt = self._prompts.build(request)
        generation = Generation(request, prompt, self._facts)
        generation.replay(request.resume)
        if generation.finish_reason is not None:
            self._post(self._deliver, [(ticket, generation.end())])
            return
        exact = 0 < len(request.resume) <= self._options.exact_resume_tokens
        tokens = [*prompt, *request.resume]
        self._commands.put(Start(ticket, generation, tokens, singly_from=len(prompt) if exact else None))

    # On the engine loop's thread.

    def _run(self, spec: ModelSpec, loaded: "asyncio.Future[ModelInfo]") -> None:
        try:
            weights = self._load_weights(spec)
        except Exception as error:
            self._post(_reject, loaded, error)
            return
        try:
            context, info = self._make_context(spec, weights)
        except Exception as error:
            weights.free()
            self._post(_reject, loaded, error)
            return
        try:
            assert self._engine_loop is not None
            self._post(_resolve, loaded, info)
            self._engine_loop.run()
        except BaseException as error:
            logger.exception("The llama.cpp engine loop ended")
            self._post(self._fail_all, EngineError(f"The engine loop ended: {type(error).__name__}: {error}").info)
        finally:
            context.free()
            weights.free()

    def _load_weights(self, spec: ModelSpec) -> Weights:
        self._options = Options.of(spec)
        path = Path(spec.path) if spec.path else locate(spec)
        self._gguf = read_gguf(path)
        if spec.n_gpu and not supports_gpu():
            raise InvalidRequest(
                f"n_gpu={spec.n_gpu}: this build of llama.cpp has no GPU support. Install llama-cpp-python with it, "
                "or launch with n_gpu=0.",
                param="n_gpu",
            )
        gpu_layers = -1 if supports_gpu() and spec.n_gpu != 0 else 0
        reported = -1.0

        def proceed(fraction: float) -> bool:
            nonlocal reported
            if fraction - reported >= 0.01:
                reported = fraction
                self._post(self._progress, 0.9 * fraction, "loading weights")
            return not self._closing

        return load_weights(path, gpu_layers, proceed)

    def _make_context(self, spec: ModelSpec, weights: Weights) -> tuple[Context, ModelInfo]:
        options = self._options
        size = sizing.choose(self._gguf.cache_shape, weights.trained_context, spec.context_length, spec.max_sequences)
        cells = options.kv_cells or size.cells
        length = min(size.context_length, cells)
        budget = max(options.token_budget, size.max_sequences)
        threads = options.threads or threads_for(weights.bytes, usable_cores())
        self._post(self._progress, 0.9, "making the KV cache")
        context = Context(weights, cells, size.max_sequences, budget, threads)
        vocabulary = weights.vocabulary
        template = _compile(weights)
        tool_source = weights.chat_template("tool_use")
        tool_template = ChatTemplate(tool_source, weights.bos_text, weights.eos_text) if tool_source else None
        self._prompts = PromptBuilder(vocabulary, template, tool_template, length)
        self._facts = TokenFacts(vocabulary.piece, vocabulary.end_of_generation, length)
        limits = Limits(cells=options.kv_cells or context.cells, slots=size.max_sequences, token_budget=budget)
        self._engine_loop = EngineLoop(context, limits, self._commands, self._live.__contains__, self._publish)
        chats = isinstance(template, ChatTemplate)
        takes_tools = tool_template is not None or (isinstance(template, ChatTemplate) and template.takes_tools)
        self._post(self._progress, 1.0, "ready")
        return context, ModelInfo(
            context_length=length,
            vocab_size=vocabulary.size,
            abilities=("generate", *(("chat",) if chats else ()), *(("tools",) if chats and takes_tools else ())),
            parameters=weights.parameters,
            memory_bytes=context.memory_bytes,
            architecture=weights.architecture,
        )

    def _publish(self, outcomes: list[Outcome]) -> None:
        self._post(self._deliver, outcomes)

    def _post(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._event_loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._event_loop.is_closed():
                raise
            # Whoever listened is gone without closing the engine: nothing is left to work for.
            self._closing = True
            self._commands.put(Stop())


def _compile(weights: Weights) -> ChatTemplate | str:
    """The model's chat template, or why it has none that works."""
    source = weights.chat_template()
    if source is None:
        return "its file has no chat template"
    try:
        return ChatTemplate(source, weights.bos_text, weights.eos_text)
    except InvalidRequest as error:
        return error.message


def _resolve(future: "asyncio.Future[ModelInfo]", value: ModelInfo) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: "asyncio.Future[ModelInfo]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
