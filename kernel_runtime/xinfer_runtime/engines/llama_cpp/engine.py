"""The llama.cpp engine as the replica sees it: asyncio on one side, the engine loop's thread on the other.

A request passes three threads: `submit` on the event loop; its template and tokenization on the preparing thread, in
order of arrival, so that a long prompt delays neither the event loop nor a decode step; its tokens on the engine loop.
One with images passes the viewing thread before.
Outcomes come back with one `call_soon_threadsafe` per step.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from queue import SimpleQueue
from typing import TypeVar

import msgspec

from xinfer_runtime.engines.base import EmitStep, Engine, ReportProgress
from xinfer_runtime.engines.llama_cpp import sizing
from xinfer_runtime.engines.llama_cpp.commands import Abort, Command, Export, Start, Stop, UseThreads
from xinfer_runtime.engines.llama_cpp.generation import Generation
from xinfer_runtime.engines.llama_cpp.image_rows import SeenImage, placed
from xinfer_runtime.engines.llama_cpp.loading import load_model
from xinfer_runtime.engines.llama_cpp.loop import PACE, EngineLoop, Outcome
from xinfer_runtime.engines.llama_cpp.moving import from_state, to_state
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.prefix_saving import PrefixSaving
from xinfer_runtime.engines.llama_cpp.prefix_store import PrefixStore, SavedPrefix
from xinfer_runtime.engines.llama_cpp.projector import UnreadableImageError
from xinfer_runtime.engines.llama_cpp.prompt_share import PromptShare
from xinfer_runtime.engines.llama_cpp.seen_images import SeenImages
from xinfer_runtime.engines.llama_cpp.speculation import Speculation
from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.errors import DeadlineExceeded, EngineError, ErrorInfo, InvalidRequest, XinferError
from xinfer_runtime.messages import Delta, GenerateRequest, Priority, ReplicaRequest
from xinfer_runtime.models import EngineStats, ModelInfo, ModelSpec

logger = logging.getLogger(__name__)

T = TypeVar("T")

_EXPORT_SECONDS = 5.0
"""What a step may take before a request that is to leave goes without its state."""


class LlamaCppEngine(Engine):
    """One GGUF model. A request submitted under an id that is still running replaces that request.

    A request is known by its ticket, which is never used twice, so that what still arrives for an aborted request is
    not taken for a later one's.
    """

    def __init__(self) -> None:
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._tickets = count()
        self._ticket_of: dict[str, int] = {}
        self._live: dict[int, str] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._preparing = 0
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="xinfer-prepare")
        self._viewer = ThreadPoolExecutor(1, thread_name_prefix="xinfer-view")
        self._thread: threading.Thread | None = None
        self._loop: EngineLoop | None = None
        self._images: SeenImages | None = None
        self._closing = False
        self._cores: int | None = None
        self._ended: ErrorInfo | None = None
        """Why no request can run any more."""

    async def load(self, spec: ModelSpec, emit: EmitStep, progress: ReportProgress) -> ModelInfo:
        self._options = Options.of(spec)
        self._event_loop = asyncio.get_running_loop()
        self._emit = emit
        loaded: asyncio.Future[ModelInfo] = self._event_loop.create_future()
        self._thread = threading.Thread(
            target=self._run, args=(spec, progress, loaded), name="xinfer-llama", daemon=True
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
        if self._loop is not None:
            self._commands.put(UseThreads(self._model.threads(cores), cores))

    def submit(self, request: ReplicaRequest, state: SequenceState | None = None) -> None:
        if not isinstance(request, GenerateRequest):
            raise InvalidRequest(
                "This model was launched to generate text. For vectors, launch it with model_type=embedding.",
                param="model",
            )
        self.abort(request.id)
        ticket = next(self._tickets)
        self._ticket_of[request.id] = ticket
        self._live[ticket] = request.id
        if request.timeout is not None:
            self._timers[ticket] = self._event_loop.call_later(request.timeout, self._expire, ticket, request)
        if self._ended is None and not self._closing and self._loop is not None:
            self._preparing += 1
            if any(message.images for message in request.messages or ()):
                self._viewer.submit(self._view, ticket, request)
            else:
                self._preparer.submit(self._prepare, ticket, request, state)
        else:
            error = self._ended or EngineError("The engine is not running").info
            self._event_loop.call_soon(self._deliver, [(ticket, Delta(id=request.id, error=error))])

    def abort(self, request_id: str) -> None:
        ticket = self._ticket_of.pop(request_id, None)
        if ticket is not None:
            self._forget(ticket)
            self._commands.put(Abort(ticket))

    async def export_state(self, request_id: str) -> SequenceState | None:
        ticket = self._ticket_of.get(request_id)
        if ticket is None or self._ended is not None or self._loop is None:
            self.abort(request_id)
            return None
        given: asyncio.Future[SavedPrefix | None] = self._event_loop.create_future()
        self._commands.put(Export(ticket, lambda moved: self._post(_resolve, given, moved)))
        try:
            moved = await asyncio.wait_for(given, _EXPORT_SECONDS)
        except TimeoutError:
            moved = None
        if ticket not in self._live:
            return None  # It ended by itself.
        self.abort(request_id)
        return to_state(moved, self._model.info.state_identity) if moved is not None else None

    def stats(self) -> EngineStats:
        if self._loop is None:
            return EngineStats()
        counts = self._loop.counts
        return msgspec.structs.replace(
            counts, waiting=counts.waiting + self._preparing, tokens_per_second=self._loop.throughput.rate()
        )

    async def close(self) -> None:
        self._closing = True
        for executor in (self._viewer, self._preparer):
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)
        self._commands.put(Stop())
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._end(EngineError("The replica was stopped while this request ran").info)

    # ---- on the event loop's thread

    def _deliver(self, outcomes: list[Outcome]) -> None:
        deltas = []
        for ticket, delta in outcomes:
            if ticket not in self._live:
                continue  # Aborted since.
            deltas.append(delta)
            if delta.last:
                del self._ticket_of[self._live[ticket]]
                self._forget(ticket)
        if deltas:
            self._emit(deltas)

    def _forget(self, ticket: int) -> None:
        del self._live[ticket]
        if (timer := self._timers.pop(ticket, None)) is not None:
            timer.cancel()

    def _expire(self, ticket: int, request: GenerateRequest) -> None:
        error = DeadlineExceeded(f"The request took more than the {request.timeout:g} s that were given to it")
        self._commands.put(Abort(ticket))
        self._deliver([(ticket, Delta(id=request.id, error=error.info))])

    def _prepared(self) -> None:
        self._preparing -= 1

    def _end(self, error: ErrorInfo) -> None:
        self._ended = error
        self._deliver([(ticket, Delta(id=request_id, error=error)) for ticket, request_id in self._live.items()])

    # ---- on the viewing thread

    def _view(self, ticket: int, request: GenerateRequest) -> None:
        """Look at the images, which takes long: requests without any shall not wait for it."""
        try:
            images = self._look(ticket, request) if self._images is not None else []
            self._preparer.submit(self._prepare, ticket, request, None, images)
        except Exception as error:
            self._fail(ticket, request, error)
            self._post(self._prepared)

    def _look(self, ticket: int, request: GenerateRequest) -> list[SeenImage]:
        assert self._images is not None
        self._images.wait_for_room(lambda: ticket in self._live and not self._closing)
        seen: list[SeenImage] = []
        for image in (image for message in request.messages or () for image in message.images):
            if ticket not in self._live or self._closing:
                break
            try:
                seen.append(self._images.look(image.data))
            except UnreadableImageError as error:
                raise InvalidRequest(
                    f"`{image.place}`: the image cannot be read: {error}.", param=image.place
                ) from error
            self._model.prompts.check_images(request, seen)
        return seen

    # ---- on the preparing thread

    def _prepare(
        self, ticket: int, request: GenerateRequest, state: SequenceState | None, images: Sequence[SeenImage] = ()
    ) -> None:
        try:
            if ticket in self._live:
                self._start(ticket, request, state, images)
        except Exception as error:
            self._fail(ticket, request, error)
        finally:
            self._post(self._prepared)

    def _fail(self, ticket: int, request: GenerateRequest, error: Exception) -> None:
        """It is the request's own failure, whatever it is: the next one is prepared as usual."""
        if isinstance(error, XinferError):
            info = error.info
        elif isinstance(error, RecursionError):
            info = InvalidRequest("The request is nested too deeply for the model's chat template.").info
        else:
            logger.error("Preparing a request failed", exc_info=error)
            info = EngineError(f"The request could not be prepared: {type(error).__name__}: {error}").info
        self._post(self._deliver, [(ticket, Delta(id=request.id, error=info))])

    def _start(
        self, ticket: int, request: GenerateRequest, state: SequenceState | None, images: Sequence[SeenImage]
    ) -> None:
        prompts = self._model.prompts
        if request.tokenize is not None or request.detokenize:
            answer = prompts.detokenization(request) if request.detokenize else prompts.tokenization(request, images)
            self._post(self._deliver, [(ticket, answer)])
            return
        adapter = self._model.adapters.check(request.lora)
        prompt = prompts.build(request, images)
        generation = Generation(request, prompt, self._model.facts)
        generation.replay(request.resume)
        if generation.finish_reason is not None:
            self._post(self._deliver, [(ticket, generation.end())])
            return
        exact = 0 < len(request.resume) <= self._options.exact_resume_tokens
        tokens = [*prompt, *request.resume]
        identity = self._model.info.state_identity
        moved = from_state(state, identity, adapter, tokens) if state is not None else None
        self._commands.put(
            Start(
                ticket,
                generation,
                tokens,
                len(prompt) if exact else None,
                adapter,
                batch=request.priority is Priority.BATCH,
                moved=moved,
                images=placed(prompt, images),
            )
        )

    # ---- on the engine loop's thread

    def _run(self, spec: ModelSpec, progress: ReportProgress, loaded: "asyncio.Future[ModelInfo]") -> None:
        def proceed(fraction: float, stage: str) -> bool:
            self._post(progress, fraction, stage)
            return not self._closing

        try:
            self._model = load_model(spec, self._options, proceed, self._cores)
        except Exception as error:
            self._post(_reject, loaded, error)
            return
        try:
            model, wanted = self._model, self._live.__contains__
            if model.projector is not None:
                self._images = SeenImages(model.projector.look, sizing.IMAGE_ROWS_BYTES)
            self._loop = EngineLoop(
                model.context,
                model.limits,
                self._commands,
                wanted,
                self._publish,
                overlap=model.on_gpu,
                speculation=Speculation(model.drafter, self._options.draft_tokens) if model.drafter else None,
                saving=self._saving(),
                # A GPU's passes take nearly the same time whatever their length, and a launch that names a budget
                # means it.
                prompt_share=None if model.on_gpu or self._options.token_budget else PromptShare(PACE),
            )
            if self._cores is not None:  # It may have changed during the load.
                self._commands.put(UseThreads(self._model.threads(self._cores), self._cores))
            self._post(_resolve, loaded, self._model.info)
            self._loop.run()
            self._keep_prefixes()
        except BaseException as error:
            logger.exception("The llama.cpp engine loop ended")
            self._post(self._end, EngineError(f"The engine loop ended: {type(error).__name__}: {error}").info)
        finally:
            self._model.free()

    def _saving(self) -> PrefixSaving | None:
        """What keeps evicted prefixes, where the launch wants that; it begins with what was kept at the last unload."""
        if self._model.prefix_file is None:
            return None
        store = PrefixStore(self._options.prefix_store_bytes)
        for prefix in reversed(self._model.prefix_file.read(store.capacity)):
            if not store.covers(prefix.adapter, prefix.tokens):
                store.put(prefix)
        return PrefixSaving(self._model.context, store, spare=self._model.limits.kv_sequences)

    def _keep_prefixes(self) -> None:
        """Write what the next load of this model can use again."""
        if self._model.prefix_file is None or self._loop is None:
            return
        try:
            most = min(self._options.prefix_store_bytes, sizing.KEPT_BYTES)
            kept = self._model.prefix_file.write(self._loop.prefixes(most))
            logger.info("%d prefixes are kept in %s", kept, self._model.prefix_file.path)
        except (OSError, XinferError) as error:
            logger.warning("The prefixes cannot be kept in %s: %s", self._model.prefix_file.path, error)

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


def _resolve(future: "asyncio.Future[T]", value: T) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: "asyncio.Future[ModelInfo]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
