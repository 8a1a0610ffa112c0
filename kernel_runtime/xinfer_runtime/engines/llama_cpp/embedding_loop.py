"""The one thread that computes vectors: one pass over as many inputs as its token budget holds, one after another."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from xinfer_runtime.engines.llama_cpp.embedding_context import EmbeddingContext
from xinfer_runtime.engines.llama_cpp.embedding_queue import EmbeddingQueue, Item, Job, Vector
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice
from xinfer_runtime.engines.llama_cpp.throughput import Throughput
from xinfer_runtime.engines.llama_cpp.vectors import packed
from xinfer_runtime.errors import EngineError, XinferError
from xinfer_runtime.messages import Delta, EmbedRequest, FinishReason, Usage
from xinfer_runtime.models import EngineStats

logger = logging.getLogger(__name__)

Outcome = tuple[int, Delta]


_LONG = 128
"""Tokens of a request beside which one more message to the gateway costs nothing."""


@dataclass(frozen=True)
class Start:
    """Compute a request: `inputs` are the tokens of each of its inputs."""

    ticket: int
    request: EmbedRequest
    inputs: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Abort:
    """Drop a request."""

    ticket: int


@dataclass(frozen=True)
class UseThreads:
    """Compute with these numbers of threads from now on."""

    threads: ThreadChoice


@dataclass(frozen=True)
class Stop:
    """End the loop."""


Command = Start | Abort | UseThreads | Stop


class EmbeddingLoop:
    """Takes commands from a queue, computes passes while there is work, sleeps on the queue while there is none.

    Both callbacks run on this thread: `wanted` tells whether a ticket has not been aborted, `publish` gets the outcomes
    of a pass. `counts` is replaced, never changed, so that any thread may read it.
    """

    def __init__(
        self,
        context: EmbeddingContext,
        queue: EmbeddingQueue,
        commands: SimpleQueue[Command],
        wanted: Callable[[int], bool],
        publish: Callable[[list[Outcome]], None],
    ) -> None:
        self._context = context
        self._queue = queue
        self._commands = commands
        self._wanted = wanted
        self._publish = publish
        self._requests: dict[int, EmbedRequest] = {}
        self._tokens = 0
        self.throughput = Throughput()
        self.counts = EngineStats()

    def run(self) -> None:
        """Work until a Stop command comes."""
        while self._obey():
            items = self._queue.next_pass()
            self._begin(items)
            self._count(items)
            outcomes = self._compute(items)
            self._count()
            if outcomes:
                self._publish(outcomes)

    def _obey(self) -> bool:
        """Carry out the commands that have come; wait for one when there is nothing else to do."""
        while True:
            try:
                command = self._commands.get(block=not len(self._queue))
            except Empty:
                return True
            if isinstance(command, Stop):
                return False
            if isinstance(command, UseThreads):
                self._context.use_threads(command.threads)
            elif isinstance(command, Abort):
                self._requests.pop(command.ticket, None)
                self._queue.remove(command.ticket)
            elif self._wanted(command.ticket):  # Its abort may have overtaken it while it was prepared.
                self._requests[command.ticket] = command.request
                self._queue.add(Job(command.ticket, command.inputs))
            self._count()

    def _begin(self, items: Sequence[Item]) -> None:
        """Say of long requests whose first input is computed now how long they are."""
        begun = [item.job for item in items if item.index == 0 and item.job.key in self._requests]
        told = [
            (job.key, Delta(self._requests[job.key].id, prompt_tokens=job.tokens))
            for job in begun
            if job.tokens >= _LONG
        ]
        if told:
            self._publish(told)

    def _compute(self, items: Sequence[Item]) -> list[Outcome]:
        """One pass. Where it fails, each input is computed alone, so that only those at fault fail."""
        if not items:
            return []
        outcomes: list[Outcome] = []
        try:
            vectors: Sequence[Vector | None] = list(self._context.compute([item.tokens for item in items]))
        except Exception:  # Whatever it was, it must not end the loop.
            logger.exception("A pass over %d inputs failed", len(items))
            vectors = [self._alone(item, outcomes) for item in items]
        for item, vector in zip(items, vectors, strict=True):
            if vector is not None and item.job.key in self._requests:
                item.job.vectors[item.index] = vector
                if item.job.done:
                    outcomes.append((item.job.key, self._finished(item.job)))
        computed = sum(len(item.tokens) for item in items)
        self._tokens += computed
        self.throughput.count(computed)
        return outcomes

    def _alone(self, item: Item, outcomes: list[Outcome]) -> Vector | None:
        key = item.job.key
        if key not in self._requests:
            return None
        try:
            vector: Vector = self._context.compute([item.tokens])[0]
        except Exception as error:
            reason = EngineError(f"The engine failed on this request: {error}")
            outcomes.append((key, self._failed(key, reason)))
            return None
        return vector

    def _finished(self, job: Job) -> Delta:
        request = self._requests[job.key]
        try:
            vectors = tuple(
                packed(job.vectors[index], request, squashed=self._context.squashed) for index in range(len(job.inputs))
            )
        except EngineError as error:
            return self._failed(job.key, error)
        del self._requests[job.key]
        return Delta(request.id, finish_reason=FinishReason.STOP, usage=Usage(job.tokens, 0), vectors=vectors)

    def _failed(self, key: int, error: XinferError) -> Delta:
        self._queue.remove(key)
        return Delta(self._requests.pop(key).id, error=error.info)

    def _count(self, items: Sequence[Item] = ()) -> None:
        running = len({item.job.key for item in items})
        self.counts = EngineStats(
            running=running,
            waiting=len(self._requests) - running,
            prompt_tokens=self._tokens,
        )
