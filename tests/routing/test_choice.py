import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.messages import (
    ChatImage,
    ChatMessage,
    Delta,
    EmbedRequest,
    FinishReason,
    GenerateRequest,
    ReplicaRequest,
    SamplingParams,
    ToolCall,
    Usage,
)
from xinfer_runtime.models import EngineStats, ModelInfo
from xinfer_runtime.routing.choice import PREFIX_WORTH, Candidate, Reason, choose
from xinfer_runtime.routing.prompt_blocks import BLOCK_BYTES, prompt_of
from xinfer_runtime.routing.replica_choice import BLOCK_TOKENS, ReplicaChoice
from xinfer_runtime.routing.workload import AnswerLength, Workload


def test_a_cached_prefix_is_worth_as_much_work_as_it_saves() -> None:
    idle, cached = Candidate(0.0), Candidate(1900.0, cached=1000)
    chosen = choose([idle, cached])
    assert (chosen.index, chosen.reason, chosen.cached) == (1, Reason.PREFIX, 1000)
    busier = choose([idle, Candidate(2100.0, cached=1000)])
    assert (busier.index, busier.reason, busier.cached) == (0, Reason.LOAD, 0)


def test_without_a_match_the_least_outstanding_tokens_decide_and_equals_take_turns() -> None:
    assert choose([Candidate(5.0), Candidate(3.0), Candidate(4.0)]).index == 1
    assert {choose([Candidate(0.0)] * 3, turn).index for turn in range(3)} == {0, 1, 2}
    assert choose([Candidate(7.0, cached=3)]).reason is Reason.ONLY


@given(
    st.lists(st.builds(Candidate, st.floats(0, 1e6), st.integers(0, 10_000)), min_size=1, max_size=40),
    st.integers(0, 1000),
)
def test_no_other_replica_would_be_through_earlier(candidates: list[Candidate], turn: int) -> None:
    chosen = choose(candidates, turn)
    costs = [candidate.outstanding - PREFIX_WORTH * candidate.cached for candidate in candidates]
    assert costs[chosen.index] == min(costs)


def chat(*texts: str, lora: str | None = None) -> GenerateRequest:
    messages = tuple(ChatMessage(role="user", content=text) for text in texts)
    return GenerateRequest(id="r", messages=messages, lora=lora)


def common(first: ReplicaRequest, second: ReplicaRequest) -> int:
    pairs = zip(prompt_of(first).blocks, prompt_of(second).blocks, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(prompt_of(first).blocks))


def test_a_conversation_that_goes_on_has_the_blocks_of_its_beginning() -> None:
    text = "How does a prefix cache work? " * 20
    first, second = chat(text), chat(text, "It keeps what was computed.", "And then?")
    assert common(first, second) == len(prompt_of(first).blocks) == len(text + "user\0") // BLOCK_BYTES
    assert common(first, chat("X" + text)) == 0
    assert common(first, chat(text, lora="other")) == 0


def test_all_that_becomes_part_of_the_prompt_is_in_the_blocks() -> None:
    filler = "x" * BLOCK_BYTES
    call = ToolCall(id="1", name="f", arguments=filler)
    variants = [
        ChatMessage(role="user", content=filler),
        ChatMessage(role="system", content=filler),
        ChatMessage(role="user", tool_calls=(call,)),
        ChatMessage(role="user", content=filler, images=(ChatImage(b"png" * 200),)),
    ]
    requests = [GenerateRequest(id="r", messages=(message,) * 3) for message in variants]
    requests.append(GenerateRequest(id="r", messages=(variants[0],) * 3, tools=({"type": "function"},)))
    assert len({prompt_of(request).blocks for request in requests}) == len(requests)


def test_lengths_are_estimated_for_every_kind_of_request() -> None:
    assert prompt_of(GenerateRequest(id="r", prompt="x" * 4000)).tokens == 1001
    tokens = GenerateRequest(id="r", token_ids=tuple(range(1000)))
    assert prompt_of(tokens).tokens == 1001
    assert len(prompt_of(tokens).blocks) == 4000 // BLOCK_BYTES
    assert prompt_of(GenerateRequest(id="r", prompt="x", resume=(1,) * 50)).tokens == 51
    assert prompt_of(EmbedRequest(id="r", inputs=("x" * 40, (1, 2)))).tokens == 14
    assert prompt_of(GenerateRequest(id="r", token_ids=(1 << 40,))).blocks == ()
    assert prompt_of(GenerateRequest(id="r", prompt="\ud800" * 100)).blocks


def test_outstanding_tokens_shrink_with_the_answer_and_end_at_nothing() -> None:
    load = Workload()
    first, second = load.add(1000, 50), load.add(10, 2)
    assert load.tokens == 1062
    first.observe(Delta("1", token_ids=(1,)))
    assert load.tokens == 61
    for _ in range(100):
        second.observe(Delta("2", token_ids=(1, 2)))
    assert load.tokens == 50, "an answer longer than expected is not negative"
    first.end()
    second.end()
    second.end()
    assert load.tokens == 0


def test_the_expected_answer_follows_what_answers_were() -> None:
    lengths = AnswerLength()
    request = GenerateRequest(id="r", prompt="x", sampling=SamplingParams(max_tokens=1000))
    for _ in range(200):
        lengths.learn(600)
    assert 590 < lengths.expected(request) <= 600
    assert lengths.expected(GenerateRequest(id="r", prompt="x", sampling=SamplingParams(max_tokens=7))) == 7
    assert lengths.expected(EmbedRequest(id="r", inputs=("x",))) == 0


class Link:
    def __init__(self, address: str) -> None:
        self.address = address
        self.workload = Workload()
        self.stats = EngineStats(kv_total=100 * BLOCK_TOKENS)
        self.info: ModelInfo | None = ModelInfo(context_length=0, vocab_size=0, abilities=(), prefix_cache=True)
        self.others = 0
        self.outstanding = 0


def ask(choice: ReplicaChoice, link: Link, request: GenerateRequest, found: float) -> int:
    """Blocks expected to be cached there."""
    prompt = prompt_of(request)
    chosen = choice.choose([link], prompt, 0.0)
    errand = choice.sent(link, prompt, chosen.cached, request, 0.0)
    errand.observe(Delta("r", token_ids=(1,), finish_reason=FinishReason.STOP, usage=Usage(1000, 1, int(1000 * found))))
    errand.end()
    return chosen.cached // BLOCK_TOKENS


def test_what_engines_do_not_keep_is_soon_not_expected_of_them() -> None:
    choice, link = ReplicaChoice(), Link("a")
    requests = [GenerateRequest(id="r", prompt=f"{n} " + "x" * 20 * BLOCK_BYTES) for n in range(3)]
    for _ in range(2):
        expected = [ask(choice, link, request, found=0.0) for request in requests]
    assert min(expected) == 20, "all fit into the cache as it was told"
    for _ in range(10):
        expected = [ask(choice, link, request, found=0.0) for request in requests]
    assert max(expected) < 20
    assert link.workload.tokens == pytest.approx(0)


def test_a_replica_without_a_prefix_cache_is_expected_to_have_nothing() -> None:
    choice, link = ReplicaChoice(), Link("a")
    link.info = None
    assert [ask(choice, link, chat("x" * 1000), found=0.0) for _ in range(2)] == [0, 0]
