"""Constraints on a small vocabulary without a model: what may come next, limits, and failures."""

import json
import random
import time
from typing import Any

import llama_cpp  # noqa: F401
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from xinfer_runtime.engines.llama_cpp import constraint_grammar as limits
from xinfer_runtime.engines.llama_cpp.constraint import OutputConstraint
from xinfer_runtime.engines.llama_cpp.constraint_compiler import CACHED_GRAMMARS, ConstraintCompiler, _Tokens
from xinfer_runtime.engines.llama_cpp.sampler import Sampler, sample
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Constraint, ConstraintKind, SamplingParams

WORDS = [b'{"', b'": ', b'"}', b"true", b", ", b"th", "好".encode(), b"<tool_call>", b"</tool_call>"]
PIECES = [*(bytes([byte]) for byte in range(256)), *WORDS, b"", b""]
CONTROL, END = len(PIECES) - 2, len(PIECES) - 1


def compiler() -> ConstraintCompiler:
    return ConstraintCompiler(PIECES.__getitem__, len(PIECES), frozenset({END}))


def constrained(kind: ConstraintKind, value: Any = None) -> OutputConstraint:
    return compiler().compile(Constraint(kind, value))


def allowed(state: OutputConstraint) -> set[int]:
    logits = np.zeros(len(PIECES), dtype=np.float32)
    state.rule_out(logits)
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def accepts(state: OutputConstraint, text: str) -> bool:
    """Whether the text, byte by byte, is a complete output."""
    for byte in text.encode():
        if byte not in allowed(state):
            return False
        state.accept(byte)
    return END in allowed(state)


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "n": {"type": "integer", "minimum": 3}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        (ConstraintKind.JSON_OBJECT, None, ['{"a": [1, null]}', "{}", '{\n  "a": 1\n}'], ["[1]", "{", '{"a": 1}x']),
        (ConstraintKind.JSON_SCHEMA, SCHEMA, ['{"name": "好", "n": 3}'], ['{"n": 3}', '{"name": "", "n": 2}']),
        (ConstraintKind.JSON_SCHEMA, True, ["1", '"x"'], ["x"]),
        (ConstraintKind.REGEX, r"[a-c]{2}/\d+", ["ab/1"], ["ab1", "ab/", "ad/1", "xab/1"]),
        (ConstraintKind.REGEX, "^a|bc$", ["a", "bc"], ["b", "abc"]),
        (ConstraintKind.REGEX, "a\n\\/b", ["a\n/b"], ["a/b"]),
        (ConstraintKind.CHOICE, ["yes", "no", 'a"\\\n', "😀", "no way"], ["yes", "no", 'a"\\\n', "😀"], ["", "ye"]),
        (ConstraintKind.GRAMMAR, 'start: "(" start ")" | "x"', ["x", "((x))"], ["((x)", "()"]),
        (ConstraintKind.GRAMMAR, 'root ::= "(" root ")" | [0-9]+', ["12", "((1))"], ["((1)", "()"]),
    ],
)
def test_only_what_conforms_is_complete(kind: ConstraintKind, value: Any, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not accepts(constrained(kind, value), text)] == []
    assert [text for text in bad if accepts(constrained(kind, value), text)] == []


def test_an_escape_does_not_hide_a_property_from_its_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert not accepts(constrained(ConstraintKind.JSON_SCHEMA, schema), '{"b": 1, "\\u0061": "x"}')
    assert accepts(constrained(ConstraintKind.JSON_SCHEMA, schema), '{"a": 1, "b": 1}')


def test_options_inside_a_schema_do_not_loosen_it() -> None:
    with pytest.raises(InvalidRequest, match="not"):
        constrained(ConstraintKind.JSON_SCHEMA, {"not": {"type": "string"}, "x-guidance": {"lenient": True}})


def test_white_space_cannot_go_on_for_ever() -> None:
    state = constrained(ConstraintKind.JSON_OBJECT)
    for byte in b"{\n" + b" " * 40:
        assert byte in allowed(state)
        state.accept(byte)
    assert allowed(state) & {*b" \n\t\r"} == set()


def test_control_tokens_and_the_end_are_ruled_out_until_the_output_is_complete() -> None:
    state = constrained(ConstraintKind.CHOICE, ["ab", "abc"])
    assert allowed(state) == {ord("a")}
    for byte in b"ab":
        state.accept(byte)
    assert (allowed(state), state.complete) == ({ord("c"), END}, False)
    state.accept(ord("c"))
    assert state.complete


def test_a_token_over_several_parts_of_the_grammar_is_allowed() -> None:
    assert PIECES.index(b'{"') in allowed(constrained(ConstraintKind.JSON_SCHEMA, SCHEMA))


def test_a_text_that_must_come_may_come_in_any_tokens() -> None:
    state = constrained(ConstraintKind.CHOICE, ["the"])
    assert allowed(state) == {ord("t"), PIECES.index(b"th")}


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (ConstraintKind.JSON_SCHEMA, {"type": "foo"}, "foo"),
        (ConstraintKind.JSON_SCHEMA, "text", "object"),
        (ConstraintKind.JSON_SCHEMA, {"const": float("nan")}, "JSON"),
        (ConstraintKind.JSON_SCHEMA, {"uniqueItems": True, "type": "array"}, "uniqueItems"),
        (ConstraintKind.JSON_SCHEMA, {"$ref": "https://example.com/schema.json"}, "example.com"),
        (ConstraintKind.JSON_SCHEMA, {"type": "object", "minProperties": 2}, "minProperties"),
        (ConstraintKind.JSON_SCHEMA, {"enum": ["a", "\x1f"]}, "control character"),
        (ConstraintKind.JSON_SCHEMA, {"properties": {"\x01": {}}}, "control character"),
        (ConstraintKind.JSON_SCHEMA, {"enum": ["x" * limits.MAX_SCHEMA_BYTES]}, "bytes"),
        (ConstraintKind.JSON_SCHEMA, {"type": "string", "pattern": "a?" * limits.MAX_EXPRESSION}, "pattern"),
        (ConstraintKind.REGEX, "(a", "unclosed"),
        (ConstraintKind.REGEX, "a(?=b)", "look"),
        (ConstraintKind.REGEX, "", "empty"),
        (ConstraintKind.REGEX, 3, "text"),
        (ConstraintKind.REGEX, "a?" * limits.MAX_EXPRESSION, "characters"),
        (ConstraintKind.CHOICE, [], "choice"),
        (ConstraintKind.CHOICE, ["a", 1], "choice"),
        (ConstraintKind.CHOICE, [str(n) for n in range(limits.MAX_CHOICES + 1)], "choices"),
        (ConstraintKind.GRAMMAR, "start: missing", "missing"),
        (ConstraintKind.GRAMMAR, "nothing of the kind ][", "grammar"),
        (ConstraintKind.GRAMMAR, 'root ::= "a', "grammar"),
        (ConstraintKind.GRAMMAR, "root ::= missing", "missing"),
        (ConstraintKind.GRAMMAR, "", "empty"),
        (ConstraintKind.GRAMMAR, "start: " + "x" * limits.MAX_GRAMMAR, "characters"),
    ],
)
def test_what_cannot_be_enforced_is_refused(kind: ConstraintKind, value: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refusal:
        constrained(kind, value)
    assert refusal.value.param == "response_format"
    assert len(refusal.value.message) < 600


PADDED = {"type": "object", "properties": {f"property {n}": {"type": "string"} for n in range(60)}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def chained(links: int) -> dict[str, Any]:
    definitions = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(links)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{links}": {"type": "string"}}}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ConstraintKind.JSON_SCHEMA, nested(5000)),
        (ConstraintKind.JSON_SCHEMA, nested(60)),
        (ConstraintKind.JSON_SCHEMA, chained(3000)),
        (ConstraintKind.GRAMMAR, "start: " + "(" * 5000 + '"a"' + ")" * 5000),
        (ConstraintKind.GRAMMAR, "start: r0\n" + "".join(f"r{n}:r{n + 1}\n" for n in range(1200)) + 'r1200:"a"'),
        (ConstraintKind.GRAMMAR, 'root ::= "a" ' + "(" * 7000),
        (ConstraintKind.GRAMMAR, f"start: %json {json.dumps(chained(3000))}"),
        (ConstraintKind.GRAMMAR, f"start: %json {json.dumps(chained(1200))}".replace("$ref", "\\u0024ref")),
        (ConstraintKind.GRAMMAR, 'start: "/" /' + "a?" * 2000 + "/"),
        (ConstraintKind.GRAMMAR, "start: X\nX: " + '"a"? ' * 5000),
        (ConstraintKind.REGEX, "(" * 400 + "a" + ")?" * 300),
    ],
)
def test_what_would_exhaust_the_process_is_refused_quickly(kind: ConstraintKind, value: Any) -> None:
    subject = compiler()
    began = time.perf_counter()
    with pytest.raises(InvalidRequest):
        subject.compile(Constraint(kind, value))
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ConstraintKind.GRAMMAR, "start: a\n" + f"a: %json {json.dumps(nested(20) | {'title': 'x' * 4000})}\n" * 1),
        (ConstraintKind.GRAMMAR, "start: a\n" + f"a: {' | '.join(f'%json {json.dumps(PADDED)}' for _ in range(20))}"),
        (ConstraintKind.JSON_SCHEMA, nested(30)),
        (ConstraintKind.JSON_SCHEMA, chained(400)),
        (ConstraintKind.GRAMMAR, "start: r0\n" + "".join(f"r{n}:r{n + 1}\n" for n in range(400)) + 'r400:"a"'),
        (ConstraintKind.REGEX, "(ab?c){1,1000}"),
    ],
)
def test_what_is_just_within_the_limits_compiles(kind: ConstraintKind, value: Any) -> None:
    assert constrained(kind, value).failure is None


def test_an_expression_that_grows_too_complex_fails_its_own_request_only() -> None:
    subject = compiler()
    wanted = Constraint(ConstraintKind.REGEX, "(.*[aeiou].{30})+")
    state, other = subject.compile(wanted), subject.compile(wanted)
    other.accept(ord("a"))
    chance = random.Random(1)
    for _ in range(5000):
        allowed(state)
        state.accept(ord(chance.choice("abcdefghi")))
    assert state.failure is not None
    assert state.failure.param == "response_format"
    assert allowed(state) == set(range(len(PIECES)))
    for later in (other, subject.compile(wanted)):
        assert allowed(later) >= {*b"abc"}
        assert (allowed(later) >= {*b"\n"}, later.failure) == (False, None)


def test_a_grammar_is_compiled_once_and_its_states_are_apart() -> None:
    subject = compiler()
    wanted = Constraint(ConstraintKind.CHOICE, ["ab", "cd"])
    first = subject.compile(wanted)
    first.accept(ord("a"))
    assert allowed(subject.compile(wanted)) == {ord("a"), ord("c")}
    assert len(subject._compiled) == 1
    for n in range(CACHED_GRAMMARS + 5):
        subject.compile(Constraint(ConstraintKind.CHOICE, [str(n)]))
    assert len(subject._compiled) == CACHED_GRAMMARS


@pytest.mark.parametrize(
    "expression",
    [
        "[a-z ]{3,30}[.]",
        "[^,]{2,25}",
        r"\w+( \w+){1,5}",
        "[A-Za-z0-9_ ]{13}",
        "(a|b c|_){4,9}",
        "[^.;]{12,14}",
        ".{1,40}",
    ],
)
def test_what_is_let_through_as_a_whole_is_what_would_be_let_through_one_by_one(expression: str) -> None:
    chance = random.Random(1)
    symbols = 'abcxyzABC019_ .,;:-"\\\n好'
    words = {"".join(chance.choices(symbols, k=chance.randrange(2, 18))).encode() for _ in range(800)}
    words |= {"".join(chance.choices("abc ", k=chance.randrange(2, 18))).encode() for _ in range(800)}
    pieces = [*(bytes([byte]) for byte in range(256)), *sorted(words), b""]
    end = len(pieces) - 1
    state = ConstraintCompiler(pieces.__getitem__, len(pieces), frozenset({end})).compile(
        Constraint(ConstraintKind.REGEX, expression)
    )
    plain = LLTokenizer(TokenizerWrapper(_Tokens(pieces.__getitem__, len(pieces), [end])), eos_token=[end], slices=[])
    reference = LLMatcher(plain, LLMatcher.grammar_from_regex(expression), log_level=0)
    for _ in range(40):
        logits = np.zeros(len(pieces), dtype=np.float32)
        state.rule_out(logits)
        bits = np.unpackbits(np.frombuffer(reference.compute_bitmask(), dtype=np.uint8), bitorder="little")
        expected = np.flatnonzero(bits[: len(pieces)]).tolist()
        assert np.flatnonzero(np.isfinite(logits)).tolist() == expected
        token = chance.choice(expected)
        if token == end:
            break
        state.accept(token)
        assert reference.consume_token(token)
        if state.complete:
            break


def test_a_bias_cannot_break_a_constraint() -> None:
    params = SamplingParams(temperature=0, logit_bias={ord("z"): 100.0, ord("c"): 5.0, ord("a"): -100.0})
    sampler = Sampler(params, 0, (), constrained(ConstraintKind.CHOICE, ["ab", "ad"]))
    tokens = []
    for _ in range(2):
        (token,) = sample(np.zeros((1, len(PIECES)), dtype=np.float32), [sampler])
        assert token is not None
        tokens.append(token)
        sampler.accept(token)
    assert bytes(tokens) in (b"ab", b"ad")


def test_tools_may_be_called_in_place_of_an_answer() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tools = [
        {"type": "function", "function": {"name": "add", "parameters": parameters, "strict": True}},
        {"type": "function", "function": {"name": "loose", "parameters": parameters}},
    ]

    def state() -> OutputConstraint:
        return compiler().compile(Constraint(ConstraintKind.JSON_SCHEMA, SCHEMA), tools)

    def call(name: str, arguments: dict[str, Any]) -> str:
        return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"

    assert accepts(state(), call("add", {"x": 1}))
    assert accepts(state(), call("loose", {}) + "\n" + call("add", {"x": 1}))
    assert accepts(state(), '{"name": "x"}')
    assert not accepts(state(), call("add", {}))
    assert not accepts(state(), call("other", {}))
    assert PIECES.index(b"<tool_call>") in allowed(state())


def test_a_model_without_an_end_token_cannot_be_constrained() -> None:
    with pytest.raises(InvalidRequest, match="end"):
        ConstraintCompiler(PIECES.__getitem__, len(PIECES), frozenset()).compile(Constraint(ConstraintKind.JSON_OBJECT))
