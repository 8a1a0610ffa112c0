"""The engine loop: the one thread that touches llama.cpp, one forward pass over all running sequences per step."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import msgspec
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.control_group import usable_cores
from xinfer_runtime.engines.llama_cpp.adapters import by_adapter
from xinfer_runtime.engines.llama_cpp.batch_sampler import BatchSampler
from xinfer_runtime.engines.llama_cpp.cell_operations import Remove, Save
from xinfer_runtime.engines.llama_cpp.commands import Abort, Command, Export, Stop, UseThreads
from xinfer_runtime.engines.llama_cpp.context import DECODED, NO_CELLS, Chunk, Context
from xinfer_runtime.engines.llama_cpp.generation import Generation
from xinfer_runtime.engines.llama_cpp.moving import read_sequence
from xinfer_runtime.engines.llama_cpp.prefix_saving import PrefixSaving
from xinfer_runtime.engines.llama_cpp.prefix_store import SavedPrefix
from xinfer_runtime.engines.llama_cpp.prompt_share import PromptShare
from xinfer_runtime.engines.llama_cpp.scheduler import Limits, Scheduler
from xinfer_runtime.engines.llama_cpp.speculation import Speculation
from xinfer_runtime.engines.llama_cpp.throughput import StepTime, Throughput
from xinfer_runtime.engines.llama_cpp.token_sequence import Step, TokenSequence, Work
from xinfer_runtime.errors import EngineError
from xinfer_runtime.messages import Delta
from xinfer_runtime.models import EngineStats

logger = logging.getLogger(__name__)

PACE = 0.02
"""Seconds for which tokens may be kept to be sent together: a screen shows 50 to 60 pictures a second. The way of a
message to the client takes three processes' time from the cores that compute the next pass: one stream of 125 M
parameters on two cores got 0.94 of llama-server's tokens/s, and 0.90 with 4 ms (medians of ten runs by turns)."""

_LONG_PROMPT = 128
"""Tokens in one pass, beside which one more message to the gateway costs nothing."""

Outcome = tuple[int, Delta]
"""A delta and the ticket of the request that it is for."""


class EngineLoop:
    """Takes commands from a queue, runs steps while there is work, sleeps on the queue while there is none.

    With `overlap`, which is for GPUs, what a pass brought becomes text while the next one is computed. `prompt_share`
    is told what steps took.

    Both callbacks run on this thread: `wanted` tells whether a ticket has not been aborted, `publish` gets the outcomes
    of a step. `counts` is replaced, never changed, so that any thread may read it.
    """

    def __init__(
        self,
        context: Context,
        limits: Limits,
        commands: SimpleQueue[Command],
        wanted: Callable[[int], bool],
        publish: Callable[[list[Outcome]], None],
        overlap: bool = False,
        speculation: Speculation | None = None,
        saving: PrefixSaving | None = None,
        prompt_share: PromptShare | None = None,
    ) -> None:
        self._context = context
        self._limits = limits
        self._commands = commands
        self._wanted = wanted
        self._publish = publish
        self._sampler = BatchSampler(usable_cores())
        self._prompt_share = prompt_share
        self._scheduler = self._new_scheduler()
        self._generations: dict[int, Generation] = {}
        self._overlap = overlap
        self._speculation = speculation
        self._saving = saving
        self._untold: list[tuple[int, Generation, int]] = []
        """Requests whose token of the last pass is taken and not told, each with its cached tokens."""
        self._stopped: list[int] = []
        self._outcomes: list[Outcome] = []
        self._pressing = False
        """Whether somebody waits for an outcome: for a first token, or to go on after an end."""
        self._sent = 0.0
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self.throughput = Throughput()
        self._step_time = StepTime()
        self.counts = EngineStats(kv_total=limits.cells)

    def run(self) -> None:
        """Work until a Stop command comes."""
        with self._sampler:
            self._run()

    def prefixes(self, most: int) -> Iterator[SavedPrefix]:
        """What would be lost with the context and the store, the last used first, for so many bytes; after `run`."""
        if self._saving is None:
            return iter(())
        for key in list(self._generations):
            self._drop(key)
        return self._saving.last_used_first(self._scheduler, most)

    def _run(self) -> None:
        while self._obey():
            try:
                self._step()
            except Exception as error:  # Whatever it was, it must not end the loop: later requests are not to blame.
                logger.exception("A step of the llama.cpp engine failed")
                self._start_over(f"{type(error).__name__}: {error}")
            if self._scheduler.idle:
                self._tell()
            self._send()

    def _obey(self) -> bool:
        """Carry out the commands that have come; wait for one when there is nothing else to do."""
        while True:
            try:
                command = self._commands.get(block=self._scheduler.idle)
            except Empty:
                return True
            if isinstance(command, Stop):
                return False
            if isinstance(command, UseThreads):
                self._context.use_threads(command.threads)
                if self._speculation is not None:
                    self._speculation.use_cores(command.cores)
            elif isinstance(command, Abort):
                self._generations.pop(command.ticket, None)
                self._scheduler.remove(command.ticket)
            elif isinstance(command, Export):
                command.give(self._export(command.ticket))
            elif self._wanted(command.ticket):  # Its abort may have overtaken it while it was prepared.
                self._generations[command.ticket] = command.generation
                self._prompt_tokens += command.generation.prompt_tokens
                self._scheduler.add(
                    TokenSequence(
                        command.ticket,
                        command.tokens,
                        command.singly_from,
                        command.adapter,
                        command.batch,
                        moved=command.moved,
                        images=command.images,
                    )
                )
            self._count()

    def _step(self) -> None:
        started = time.perf_counter()
        step = self._scheduler.plan(self._propose if self._speculation is not None else None)
        if self._saving is not None:
            self._saving.prepare(step, self._scheduler)
        else:
            self._context.change([each for each in step.operations if not isinstance(each, Save)])
        for sequence in step.admitted:
            self._take_over(step, sequence)
        if not step.work:
            self._tell()
            return
        self._context.compact(self._scheduler.decoding_slots, self._scheduler.running_slots)
        rank = self._context.rank
        works = sorted(step.work, key=lambda work: rank(work.sequence.slot))
        for group in by_adapter(works, self._context.adapter):
            self._context.use_adapter(group[0].adapter)
            if not all(map(self._compute, self._passes(group))):
                return
        seconds = time.perf_counter() - started
        self._step_time.count(seconds)
        if self._speculation is not None:
            self._speculation.stepped(works, seconds)
        if self._prompt_share is not None and not any(work.draft for work in works):
            prompts = [work.count for work in works if work.count > 1]
            self._prompt_share.observe(len(works) - len(prompts), sum(prompts), seconds)

    def _passes(self, works: list[Work]) -> list[list[Work]]:
        """How works, in the order of their rank, are divided among forward passes."""
        images = [[work] for work in works if work.sequence.images and work.rows is not None]
        tokens = [work for work in works if work.rows is None] if images else works
        passes = self._context.passes([work.count + len(work.draft) for work in tokens])
        if len(passes) == 1:
            return [tokens, *images] if tokens else images
        return [*([tokens[i] for i in indexes] for indexes in passes), *images]

    def _new_scheduler(self) -> Scheduler:
        return Scheduler(self._limits, self._prompt_share.tokens if self._prompt_share is not None else None)

    def _export(self, key: int) -> SavedPrefix | None:
        """Drop a request, and give what was computed of it, after everybody was told what there is to tell."""
        self._tell()
        self._drop_stopped()
        self._pressing = True
        self._send()
        sequence = self._scheduler.computed_of(key)
        moved = read_sequence(self._context, sequence) if sequence is not None else None
        if key in self._generations:
            self._drop(key)
        return moved

    def _take_over(self, step: Step, sequence: TokenSequence) -> None:
        """Give a sequence that has just been admitted the cells that it brought. What it lacks then is computed."""
        moved, sequence.moved = sequence.moved, None
        if moved is not None and self._context.put_state(sequence.slot, moved.state):
            self._scheduler.restored(step, sequence, len(moved.tokens))

    def _propose(self, sequences: Sequence[TokenSequence], room: int) -> Sequence[Sequence[int]]:
        assert self._speculation is not None
        # The last token that a request may have is never computed.
        return self._speculation.propose(sequences, room, lambda key: self._generations[key].room - 1)

    def _compute(self, works: list[Work]) -> bool:
        """One forward pass, and a token for each sequence that is ready for one. Returns False when there was none."""
        self._tell_long_prompts(works)
        code = self._context.decode(
            [
                Chunk(
                    work.sequence.slot,
                    work.start,
                    work.tokens,
                    work.samples + len(work.draft),
                    work.rows,
                )
                for work in works
            ]
        )
        slots = [work.sequence.slot for work in works]
        # The GPU computes now, and this thread has time for what the last pass brought.
        self._tell()
        self._send()
        if code == DECODED:
            self._scheduler.computed(Step(works))
            self._drop_stopped()
            self._sample(works, slots)
            if not self._overlap:
                self._tell()
                self._drop_stopped()
                self._send()
            return True
        self._drop_stopped()
        works = [work for work in works if work.sequence.key in self._generations]
        if code != NO_CELLS:
            return self._narrow(works, code)
        if works and not self._scheduler.shed():
            self._fail([works[0].sequence.key], "the KV cache has no room for the request, though nothing else runs")
        return False

    def _narrow(self, works: list[Work], code: int) -> bool:
        """A pass over these failed: find whose fault it is, by halves, and let the others go on."""
        if len(works) < 2:
            self._fail([work.sequence.key for work in works], f"llama.cpp could not compute a batch (code {code})")
            return False
        logger.error("llama.cpp could not compute a batch of %d sequences (code %d)", len(works), code)
        # What a failed pass has left of its cells is not to be relied on.
        self._context.change([Remove(work.sequence.slot, work.start) for work in works])
        middle = len(works) // 2
        # Where the first half is not computed after all, the next step brings the second again.
        return self._compute(works[:middle]) and self._compute(works[middle:])

    def _sample(self, works: list[Work], slots: list[int]) -> None:
        """Draw the next token of each sequence, and one more as long as what is drawn is what the step had guessed."""
        sampling = [work for work in works if work.samples]
        if not sampling:
            return
        rows = list(itertools.accumulate([1 + len(work.draft) for work in sampling], initial=0))
        logits = self._context.logits(rows.pop())
        broken: list[int] = []
        accepted = {id(work): 0 for work in works if work.draft}
        generations = self._generations
        # A sequence that was found to have stopped while this pass ran had a row in it all the same.
        going_on = [pair for pair in zip(sampling, rows, strict=True) if pair[0].sequence.key in generations]
        for work, _ in going_on:
            key = work.sequence.key
            self._untold.append((key, generations[key], work.sequence.cached or 0))
        while going_on:
            going_on = self._draw(going_on, logits, accepted, broken)
        self._withdraw(works, slots, accepted)
        if broken:
            self._untold = [untold for untold in self._untold if untold[0] not in broken]
            self._fail(broken, "the model computed values that are not numbers")

    def _draw(
        self,
        works: list[tuple[Work, int]],
        logits: NDArray[np.float32],
        accepted: dict[int, int],
        broken: list[int],
    ) -> list[tuple[Work, int]]:
        """Draw a token for each work, from the row of logits with it. Returns those that have another, and its row."""
        chosen = logits if len(works) == len(logits) else logits[[row for _, row in works]]
        generations = [self._generations[work.sequence.key] for work, _ in works]
        tokens = self._sampler.sample(chosen, [generation.sampler for generation in generations])
        going_on: list[tuple[Work, int]] = []
        drawn = len(tokens) - tokens.count(None)
        self._completion_tokens += drawn
        self.throughput.count(drawn)
        for (work, row), generation, token in zip(works, generations, tokens, strict=True):
            key = work.sequence.key
            if token is None:
                broken.append(key)
                continue
            generation.take(token)
            guessed = False
            if work.draft:
                done = accepted[id(work)]
                guessed = done < len(work.draft) and work.draft[done] == token
                accepted[id(work)] += guessed
            if generation.finish_reason is not None:
                self._drop(key)
                continue
            self._scheduler.append(key, token, guessed)
            if guessed:
                going_on.append((work, row + 1))
        return going_on

    def _withdraw(self, works: list[Work], slots: list[int], accepted: dict[int, int]) -> None:
        """Remove the cells of guesses that did not come, at once: the sequences may be somebody else's soon."""
        for work, slot in zip(works, slots, strict=True):
            if work.draft:
                assert self._speculation is not None
                self._speculation.judge(work, accepted[id(work)])
                self._context.change([Remove(slot, work.start + work.count + accepted[id(work)])])

    def _tell_long_prompts(self, works: list[Work]) -> None:
        """Say that they are being computed. Others are told with their first token, which comes soon."""
        for work in works:
            if work.count >= _LONG_PROMPT and not (generation := self._generations[work.sequence.key]).begun:
                self._outcomes.append((work.sequence.key, generation.begin()))
                self._pressing = True
        if self._pressing:
            self._send()

    def _tell(self) -> None:
        """Make text of the tokens that were taken, and find the stop strings in it."""
        for key, generation, cached in self._untold:
            ended = generation.finish_reason is not None
            if not ended and key not in self._generations:
                continue  # It was aborted or has failed.
            delta = generation.tell()
            if delta.usage is not None:
                usage = msgspec.structs.replace(delta.usage, cached_tokens=min(cached, delta.usage.prompt_tokens))
                delta = msgspec.structs.replace(delta, usage=usage)
            self._outcomes.append((key, delta))
            self._pressing |= delta.last or len(delta.token_ids) == generation.completion_tokens
            if not ended and generation.finish_reason is not None:
                self._stopped.append(key)
        self._untold.clear()

    def _drop_stopped(self) -> None:
        """Remove the sequences whose stop string was found; not before a pass that they are in is accounted for."""
        for key in self._stopped:
            if key in self._generations:
                self._drop(key)
        self._stopped.clear()

    def _send(self) -> None:
        """After the counts, so that whoever sees a request end also sees its slot free."""
        self._count()
        now = time.perf_counter()
        if self._outcomes and (self._pressing or self._scheduler.idle or now - self._sent >= PACE):
            self._publish(self._outcomes)
            self._outcomes = []
            self._pressing = False
            self._sent = now

    def _drop(self, key: int) -> None:
        del self._generations[key]
        self._scheduler.remove(key)

    def _fail(self, keys: Sequence[int], reason: str) -> None:
        """End these requests with an error. Their cells are freed before the next step."""
        logger.error("%d request(s) failed: %s", len(keys), reason)
        info = EngineError(f"The engine failed on this request: {reason}").info
        self._pressing = True
        if self._saving is not None:
            self._saving.store.clear()  # It may hold what the failed ones were computed from.
        for key in keys:
            self._outcomes.append((key, Delta(id=self._generations[key].request_id, error=info)))
            del self._generations[key]
            self._scheduler.discard(key)

    def _start_over(self, reason: str) -> None:
        """End all requests with an error and go on empty."""
        self._fail(list(self._generations), reason)
        self._scheduler = self._new_scheduler()
        self._context.forget_all()

    def _count(self) -> None:
        self.counts = EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            kv_used=self._scheduler.cells_used,
            kv_total=self._limits.cells,
            cached_tokens=self._scheduler.tokens_cached,
            restored_tokens=self._scheduler.tokens_restored,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            step_seconds=self._step_time.seconds,
            drafted_tokens=self._speculation.drafted if self._speculation is not None else 0,
            accepted_tokens=self._speculation.accepted if self._speculation is not None else 0,
        )
