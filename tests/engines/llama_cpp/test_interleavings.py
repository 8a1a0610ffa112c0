"""Whatever arrives, is aborted and is preempted when: each request says what it says alone. On a real, tiny model.

The engine loop is driven step by step on the test's thread, so that what happens when is Hypothesis's to choose, and
to shrink.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from xinfer_runtime.engines.llama_cpp import loading, prefix_saving, sizing
from xinfer_runtime.engines.llama_cpp.commands import Abort, Command, Start, Stop
from xinfer_runtime.engines.llama_cpp.context import Context
from xinfer_runtime.engines.llama_cpp.draft_control import DraftControl
from xinfer_runtime.engines.llama_cpp.generation import Generation
from xinfer_runtime.engines.llama_cpp.loading import LoadedModel, load_model
from xinfer_runtime.engines.llama_cpp.loop import EngineLoop, Outcome
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.prefix_saving import PrefixSaving
from xinfer_runtime.engines.llama_cpp.prefix_store import PrefixStore
from xinfer_runtime.engines.llama_cpp.scheduler import Limits
from xinfer_runtime.engines.llama_cpp.speculation import Speculation
from xinfer_runtime.messages import GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

SEQUENCES = 5
LONGEST = 30
"""Tokens of an answer."""

STORE_BYTES = 200_000
"""Enough for some of the prompts, not for all."""

COMMON = "The same beginning of several prompts. "
PROMPTS = [
    text.encode()
    for number in range(4)
    for text in (f"{number}", f"{COMMON}{number}", f"{COMMON}And {COMMON}{number}", f"{number} abc abc abc abc abc ab")
]


Arrival = tuple[int, bytes, int]
"""Ticket, prompt, and tokens of the answer."""


class DrivenEngine:
    """An engine loop over the model, whose steps are taken one by one. `tokens` and `texts` are by ticket."""

    def __init__(self, model: LoadedModel, limits: Limits) -> None:
        model.context.forget_all()
        self.tokens: defaultdict[int, list[int]] = defaultdict(list)
        self.texts: defaultdict[int, str] = defaultdict(str)
        self.ended: set[int] = set()
        self._model = model
        self._commands: SimpleQueue[Command] = SimpleQueue()
        speculation = Speculation(model.drafter, 8) if model.drafter is not None else None
        saving = None
        if model.limits.worth_saving is not None:
            saving = PrefixSaving(model.context, PrefixStore(STORE_BYTES), model.limits.kv_sequences)
        self.loop = EngineLoop(
            model.context,
            limits,
            self._commands,
            lambda _: True,
            self._publish,
            speculation=speculation,
            saving=saving,
        )

    def run(
        self,
        starts: Mapping[int, Sequence[Arrival]],
        aborts: Mapping[int, Sequence[int]] = MappingProxyType({}),
        sheds: Collection[int] = (),
    ) -> None:
        """Take steps until nothing is left to do. What is to happen before which step is said by its number.

        At a shed the engine frees what it can do without, or preempts a sequence, whether there is need or not.
        """
        scheduler = self.loop._scheduler
        last = max([*starts, *aborts, *sheds])
        for now in range(5000):
            for arrival in starts.get(now, ()):
                self._commands.put(self._start(*arrival))
            for ticket in aborts.get(now, ()):
                self._commands.put(Abort(ticket))
            if now in sheds:
                scheduler.shed()
            self._commands.put(Stop())  # So that it does not wait for more.
            self.loop._obey()
            self.loop._step()
            self.loop._send()
            if scheduler.idle and now >= last:
                return
        pytest.fail("it does not come to an end")

    def _start(self, ticket: int, prompt: bytes, tokens: int) -> Start:
        sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        request = GenerateRequest(id=str(ticket), token_ids=tuple(prompt), sampling=sampling)
        return Start(ticket, Generation(request, prompt, self._model.facts), list(prompt), None)

    def _publish(self, outcomes: list[Outcome]) -> None:
        for ticket, delta in outcomes:
            assert delta.error is None
            assert ticket not in self.ended
            self.tokens[ticket] += delta.token_ids
            self.texts[ticket] += delta.text
            if delta.last:
                self.ended.add(ticket)


SPEC = ModelSpec(uid="m", name="m", max_sequences=SEQUENCES)
SHARED = Options(threads=1, kv_cells=1024)


@pytest.fixture(params=["shared cells", "saved prefixes", "split cache", "as on a GPU", "prompt-lookup", "draft-model"])
def model(
    request: pytest.FixtureRequest, tiny_model: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoadedModel]:
    options = SHARED
    if request.param in ("split cache", "as on a GPU"):
        options = structs.replace(options, kv_cells=None)
        padding = request.param == "as on a GPU"
        monkeypatch.setattr(loading, "Context", lambda *args, **named: Context(*args, **{**named, "padding": padding}))
    elif request.param == "saved prefixes":
        options = structs.replace(options, prefix_store_bytes=STORE_BYTES)
        monkeypatch.setattr(sizing, "WORTH_RESTORING", 8)
        monkeypatch.setattr(prefix_saving, "WORTH_RESTORING", 8)
    elif request.param != "shared cells":
        options = structs.replace(options, speculation=request.param)
        if request.param == "draft-model":
            # Nearly the model itself, so that some guesses are right and some are not.
            noise = np.random.default_rng(2).standard_normal((262, 64)).astype(np.float32)
            nearly = make_model(added={"output.weight": 0.2 * noise})
            options = structs.replace(options, draft_model=str(nearly))
        # At every step, whether it pays or not.
        monkeypatch.setattr(DraftControl, "rests", lambda _: False)
        monkeypatch.setattr(DraftControl, "lengths", all_of_them)
    loaded = load_model(structs.replace(SPEC, path=str(tiny_model)), options, lambda *_: True)
    yield replace(loaded, limits=replace(loaded.limits, prompts_apart=request.param == "as on a GPU"))
    loaded.free()


def all_of_them(_: DraftControl, rates: list[float], most: list[int], rows: int, room: int) -> list[int]:
    lengths = []
    for count in most:
        lengths.append(min(count, room))
        room -= lengths[-1]
    return lengths


@pytest.fixture
def alone(tiny_model: Path) -> dict[bytes, list[int]]:
    """The tokens that answer each prompt when nothing else is or has been computed."""
    plain = load_model(structs.replace(SPEC, path=str(tiny_model)), SHARED, lambda *_: True)
    tokens: dict[bytes, list[int]] = {}
    for prompt in PROMPTS:
        engine = DrivenEngine(plain, replace(plain.limits, retained=None))
        engine.run({0: [(0, prompt, LONGEST)]})
        tokens[prompt] = engine.tokens[0]
    plain.free()
    assert len(set(map(tuple, tokens.values()))) == len(PROMPTS)
    return tokens


arrivals = st.lists(
    st.tuples(
        st.integers(0, 40),  # arrives before this step
        st.sampled_from(PROMPTS),
        st.integers(1, LONGEST),  # tokens of its answer
        st.one_of(st.none(), st.none(), st.integers(0, 40)),  # is aborted so many steps later
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrivals=arrivals,
    sheds=st.sets(st.integers(0, 60), max_size=5),
    cells=st.integers(120, 300),
    slots=st.integers(1, SEQUENCES),
    more_budget=st.integers(0, 60),
    retained=st.sampled_from([None, 0, 60, 300]),
)
def test_each_request_says_what_it_says_alone(
    model: LoadedModel,
    alone: dict[bytes, list[int]],
    arrivals: list[tuple[int, bytes, int, int | None]],
    sheds: set[int],
    cells: int,
    slots: int,
    more_budget: int,
    retained: int | None,
) -> None:
    limits = replace(model.limits, cells=cells, slots=slots, token_budget=slots + more_budget, retained=retained)
    engine = DrivenEngine(model, limits)
    starts, aborts = defaultdict(list), defaultdict(list)
    for ticket, (arrives, prompt, tokens, lasts) in enumerate(arrivals):
        starts[arrives].append((ticket, prompt, tokens))
        if lasts is not None:
            aborts[arrives + lasts].append(ticket)
    engine.run(starts, aborts, sheds)

    assert engine.ended >= {ticket for ticket, arrival in enumerate(arrivals) if arrival[3] is None}
    for ticket, (_, prompt, tokens, _) in enumerate(arrivals):
        said = engine.tokens[ticket]
        assert said == alone[prompt][: tokens if ticket in engine.ended else len(said)]
        if ticket in engine.ended:
            assert engine.texts[ticket] == b"".join(map(model.facts.piece, said)).decode(errors="replace")
    counts = engine.loop.counts
    assert (counts.running, counts.waiting, counts.kv_used) == (0, 0, 0)
