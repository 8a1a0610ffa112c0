"""One request from token to text. Tokens here are the bytes of the text, 300 ends the text."""

from msgspec.structs import replace

from xinfer_runtime.engines.llama_cpp.generation import Generation, TokenFacts, _form, _parser
from xinfer_runtime.messages import (
    Constraint,
    ConstraintKind,
    Delta,
    FinishReason,
    GenerateRequest,
    SamplingParams,
    Usage,
)

END = 300
FACTS = TokenFacts(
    piece=lambda token: bytes([token]) if token < 256 else b"", end_of_generation=frozenset({END}), context_length=200
)


def generation(parse_tool_calls: bool = False, facts: TokenFacts = FACTS, **sampling: object) -> Generation:
    request = GenerateRequest(
        id="r",
        prompt="x",
        sampling=SamplingParams(**sampling),
        parse_tool_calls=parse_tool_calls,  # type: ignore[arg-type]
    )
    return Generation(request, prompt=[1, 2, 3], facts=facts)


def feed(subject: Generation, text: str, end: bool = True) -> list[Delta]:
    deltas = []
    for token in [*text.encode(), *([END] if end else [])]:
        deltas.append(subject.accept(token))
        if deltas[-1].last:
            break
    return deltas


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_the_end_token_stops_and_is_counted_but_not_shown() -> None:
    deltas = feed(generation(), "hi")
    assert text_of(deltas) == "hi"
    assert (deltas[-1].finish_reason, deltas[-1].usage) == (FinishReason.STOP, Usage(3, 3))


def test_ignore_eos_goes_on() -> None:
    subject = generation(ignore_eos=True, max_tokens=4)
    assert feed(subject, "a")[-1].finish_reason is None
    assert feed(subject, "bcd", end=False)[-1].finish_reason is FinishReason.LENGTH


def test_max_tokens_ends_with_length() -> None:
    deltas = feed(generation(max_tokens=3), "abcdef")
    assert text_of(deltas) == "abc"
    assert (deltas[-1].finish_reason, deltas[-1].usage) == (FinishReason.LENGTH, Usage(3, 3))


def test_the_end_of_the_context_ends_with_length() -> None:
    facts = TokenFacts(FACTS.piece, FACTS.end_of_generation, context_length=8)
    deltas = feed(generation(facts=facts, max_tokens=100), "abcdefgh")
    assert (text_of(deltas), deltas[-1].finish_reason) == ("abcde", FinishReason.LENGTH)


def test_a_stop_string_ends_the_text_before_it() -> None:
    deltas = feed(generation(stop=("never", "STOP")), "one STOP two")
    assert (text_of(deltas), deltas[-1].finish_reason) == ("one ", FinishReason.STOP)
    assert deltas[-1].stop_string == "STOP"


def test_text_held_back_for_a_stop_string_comes_with_the_last_delta() -> None:
    deltas = feed(generation(stop=("STOP",)), "one ST")
    assert (text_of(deltas), deltas[-1].text) == ("one ST", "ST")


def test_a_character_cut_by_max_tokens_becomes_one_replacement() -> None:
    assert text_of(feed(generation(max_tokens=4), "好好")) == "好\N{REPLACEMENT CHARACTER}"


def test_tool_calls_leave_the_text_and_set_the_finish_reason() -> None:
    written = 'Let me see. <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    deltas = feed(generation(parse_tool_calls=True), written)
    (call,) = [call for delta in deltas for call in delta.tool_calls]
    assert (call.name, call.arguments) == ("add", '{"a": 1}')
    assert (text_of(deltas), deltas[-1].finish_reason) == ("Let me see.", FinishReason.TOOL_CALLS)


def test_where_one_call_is_wanted_the_first_ends_the_output() -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    request = GenerateRequest(id="r", prompt="x", parse_tool_calls=True, one_call=True)
    deltas = feed(Generation(request, prompt=[1], facts=FACTS), f"Well. {call}\n{call} And so on.")

    assert text_of(deltas) == "Well."
    assert len([call for delta in deltas for call in delta.tool_calls]) == 1
    assert deltas[-1].finish_reason is FinishReason.TOOL_CALLS
    assert deltas[-1].usage == Usage(1, len(f"Well. {call}"))


def test_where_one_call_is_wanted_and_a_block_has_several_the_first_is_it() -> None:
    facts = TokenFacts(FACTS.piece, FACTS.end_of_generation, 200, template="[TOOL_CALLS]")
    request = GenerateRequest(id="r", messages=(), parse_tool_calls=True, one_call=True)
    deltas = feed(Generation(request, prompt=[1], facts=facts), "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{}")

    assert [call.name for delta in deltas for call in delta.tool_calls] == ["f"]
    assert deltas[-1].finish_reason is FinishReason.TOOL_CALLS


def test_without_parsing_tool_calls_are_text() -> None:
    written = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    deltas = feed(generation(), written)
    assert (text_of(deltas), deltas[-1].finish_reason) == (written, FinishReason.STOP)


def test_a_resumed_request_says_only_what_is_new_and_counts_everything() -> None:
    text = 'Grüße, das <tool_call>{"name": "add", "arguments": {}}</tool_call> war es. STOP nie'
    original = generation(parse_tool_calls=True, stop=("STOP",), presence_penalty=0.5)
    whole = feed(original, text)
    for cut in range(1, len(whole)):
        successor = generation(parse_tool_calls=True, stop=("STOP",), presence_penalty=0.5)
        successor.replay([token for delta in whole[:cut] for token in delta.token_ids])
        rest = [successor.accept(token) for delta in whole[cut:] for token in delta.token_ids]
        assert text_of(rest) == text_of(whole[cut:])
        assert (rest[-1].finish_reason, rest[-1].usage) == (whole[-1].finish_reason, whole[-1].usage)
        assert successor.sampler.draws == original.sampler.draws


def test_a_request_resumed_at_its_end_only_ends() -> None:
    subject = generation(max_tokens=2)
    subject.replay(list(b"ab"))
    delta = subject.end()
    assert (delta.text, delta.finish_reason, delta.usage) == ("", FinishReason.LENGTH, Usage(3, 2))


def test_a_request_for_no_tokens_only_ends() -> None:
    assert generation(max_tokens=0).end().usage == Usage(3, 0)


def test_thoughts_and_calls_are_read_in_the_format_of_the_models_template() -> None:
    facts = TokenFacts(FACTS.piece, FACTS.end_of_generation, 200, template="<think> <function=")
    request = GenerateRequest(id="r", messages=(), parse_tool_calls=True)
    subject = Generation(request, prompt=list(b"<think>\n"), facts=facts)

    deltas = feed(subject, "Hm.</think>\n<tool_call><function=f><parameter=x>\n1\n</parameter></function></tool_call>")

    assert "".join(delta.reasoning for delta in deltas) == "Hm."
    assert "".join(delta.text for delta in deltas) == ""
    assert [(call.name, call.arguments) for delta in deltas for call in delta.tool_calls] == [("f", '{"x": 1}')]
    assert deltas[-1].finish_reason is FinishReason.TOOL_CALLS
    usage = deltas[-1].usage
    assert usage is not None
    assert len("Hm.") <= usage.reasoning_tokens <= len("Hm.</think>\n")


def test_calls_in_a_constrained_output_are_read_in_the_format_that_it_is_kept_to() -> None:
    """Here of a model whose own format is another one."""
    facts = TokenFacts(FACTS.piece, FACTS.end_of_generation, 200, template="<arg_key> <|channel|>")
    request = GenerateRequest(id="r", messages=(), parse_tool_calls=True)
    bound = replace(request, constraint=Constraint(ConstraintKind.JSON_OBJECT))
    constrained = _parser(bound, _form(bound, [1], facts))
    assert constrained is not None
    output = constrained.push('<tool_call>{"name": "f", "arguments": {}}</tool_call>')

    assert [call.name for call in output.calls] == ["f"]
