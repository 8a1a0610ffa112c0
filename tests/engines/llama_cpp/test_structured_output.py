"""Structured output through the whole engine, on a tiny model with random weights: it conforms because it must."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import (
    ChatMessage,
    Constraint,
    ConstraintKind,
    FinishReason,
    GenerateRequest,
    SamplingParams,
)

RunningEngine = Any

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 3]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def asking(request_id: str, kind: ConstraintKind, value: Any = None, **fields: Any) -> GenerateRequest:
    sampling = SamplingParams(**{"temperature": 1.0, "seed": 1, "max_tokens": 200, **fields.pop("sampling", {})})
    constraint = Constraint(kind, value)
    return GenerateRequest(id=request_id, prompt="Hello", sampling=sampling, constraint=constraint, **fields)


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0},
        {"temperature": 3.0, "top_p": 0.8, "top_k": 20, "min_p": 0.01},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0, "repetition_penalty": 1.5},
        {"logit_bias": {ord("x"): 100.0, 258: 100.0, 259: 100.0}, "logprobs": 2},
        {"ignore_eos": True},
    ],
)
async def test_whatever_the_sampling_parameters_the_output_conforms(
    running: RunningEngine, sampling: dict[str, Any]
) -> None:
    deltas = await running.run(asking("r", ConstraintKind.JSON_SCHEMA, PERSON, sampling=sampling))
    assert deltas[-1].finish_reason is FinishReason.STOP
    jsonschema.validate(json.loads(running.text("r")), PERSON)


@pytest.mark.parametrize(
    ("kind", "value", "conforms"),
    [
        (ConstraintKind.REGEX, r"[0-9]{3}-[a-z]{2,5}", lambda text: re.fullmatch(r"[0-9]{3}-[a-z]{2,5}", text)),
        (
            ConstraintKind.CHOICE,
            ["yes", "no", "maybe", "not at all"],
            ["yes", "no", "maybe", "not at all"].__contains__,
        ),
        (ConstraintKind.GRAMMAR, 'root ::= "<" [a-f]{2,4} ">"', lambda text: re.fullmatch("<[a-f]{2,4}>", text)),
    ],
)
async def test_other_kinds_conform_too(
    running: RunningEngine, kind: ConstraintKind, value: Any, conforms: Callable[[str], bool]
) -> None:
    for seed in range(5):
        deltas = await running.run(asking("r", kind, value, sampling={"seed": seed}))
        assert deltas[-1].finish_reason is FinishReason.STOP
        assert conforms(running.text("r"))


async def test_an_output_that_max_tokens_cuts_says_so(running: RunningEngine) -> None:
    deltas = await running.run(asking("r", ConstraintKind.REGEX, "[a-z]{50}", sampling={"max_tokens": 10}))
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    assert re.fullmatch("[a-z]{10,20}", running.text("r"))


async def test_any_object_begins_and_ends_as_one(running: RunningEngine) -> None:
    # "}" is likely, so that most random objects end.
    for seed in range(8):
        request = asking(
            "r", ConstraintKind.JSON_OBJECT, sampling={"seed": seed, "logit_bias": {ord("}"): 9.0, ord('"'): 9.0}}
        )
        deltas = await running.run(request)
        if deltas[-1].finish_reason is FinishReason.STOP:
            assert isinstance(json.loads(running.text("r")), dict)
        else:
            assert running.text("r").startswith("{")


async def test_32_constrained_and_32_other_streams_share_batches(running: RunningEngine) -> None:
    def plain(request_id: str, n: int) -> GenerateRequest:
        sampling = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
        return GenerateRequest(id=request_id, prompt=f"prompt number {n}", sampling=sampling)

    for n in range(32):
        await running.run(plain(f"alone {n}", n))
    requests = []
    for n in range(32):
        requests.append(asking(f"bound {n}", ConstraintKind.JSON_SCHEMA, PERSON, sampling={"seed": n}))
        requests.append(plain(f"free {n}", n))
    await asyncio.gather(*map(running.run, requests))
    for n in range(32):
        assert running.text(f"free {n}") == running.text(f"alone {n}")
        assert running.deltas[f"bound {n}"][-1].finish_reason is FinishReason.STOP
        jsonschema.validate(json.loads(running.text(f"bound {n}")), PERSON)
    assert len({running.text(f"bound {n}") for n in range(32)}) > 24
    assert max(len({delta.id for delta in step}) for step in running.steps) > 48


@pytest.mark.parametrize("cut", [1, 9, 25])
async def test_a_resumed_stream_goes_on_in_its_grammar(running: RunningEngine, cut: int) -> None:
    long = {"type": "array", "items": PERSON, "minItems": 2, "maxItems": 3}
    whole = await running.run(asking("whole", ConstraintKind.JSON_SCHEMA, long))
    tokens = running.tokens("whole")
    assert len(tokens) > cut
    rest = await running.run(asking("rest", ConstraintKind.JSON_SCHEMA, long, resume=tuple(tokens[:cut])))
    assert running.tokens("rest") == tokens[cut:]
    assert running.text("whole").endswith(running.text("rest"))
    assert (rest[-1].finish_reason, rest[-1].usage.completion_tokens) == (whole[-1].finish_reason, len(tokens))


async def test_a_finished_stream_that_is_resumed_ends_at_once(running: RunningEngine) -> None:
    await running.run(asking("whole", ConstraintKind.CHOICE, ["yes"]))
    resume = tuple(running.tokens("whole"))
    (delta,) = await running.run(asking("rest", ConstraintKind.CHOICE, ["yes"], resume=resume))
    assert (delta.text, delta.token_ids, delta.finish_reason) == ("", (), FinishReason.STOP)


async def test_a_schema_that_cannot_be_enforced_fails_its_own_request_only(running: RunningEngine) -> None:
    other = asyncio.ensure_future(running.greedy("other", tokens=60))
    (delta,) = await running.run(asking("bad", ConstraintKind.JSON_SCHEMA, {"not": {}}))
    assert delta.error is not None
    assert (delta.error.code, delta.error.param) == (InvalidRequest.code, "response_format")
    assert len(await other) > 0
    assert running.engine.stats().running == 0


async def test_a_grammar_that_grows_too_complex_ends_its_own_request_only(running: RunningEngine) -> None:
    other = asyncio.ensure_future(running.greedy("other", tokens=400))
    deltas = await running.run(
        asking("bad", ConstraintKind.REGEX, "((.*[aeiou].{40})|(.*[a-z].{50}x))+", sampling={"max_tokens": 450})
    )
    if deltas[-1].error is not None:
        assert deltas[-1].error.param == "response_format"
    assert len(await other) > 0
    assert running.engine.stats().running == 0


async def test_a_tool_call_in_place_of_an_answer_is_parsed(running: RunningEngine) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}
    parameters["additionalProperties"] = False
    tools = ({"type": "function", "function": {"name": "f", "parameters": parameters, "strict": True}},)
    request = asking(
        "r",
        ConstraintKind.JSON_SCHEMA,
        PERSON,
        tools=tools,
        parse_tool_calls=True,
        sampling={"logit_bias": {259: 50.0, 258: 100.0}},
    )
    deltas = await running.run(request)
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert calls
    assert {call.name for call in calls} == {"f"}
    assert all(set(json.loads(call.arguments)) == {"x"} for call in calls)
    assert deltas[-1].finish_reason is FinishReason.TOOL_CALLS


def objects(children: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.text('abcé/"\\', min_size=1, max_size=3)

    def schema(properties: dict[str, Any], required: int, more: bool) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties)[:required],
            "additionalProperties": more,
        }

    return st.builds(schema, st.dictionaries(names, children, max_size=3), st.integers(0, 3), st.just(False))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="".join(map(chr, [*range(32), 127]))), max_size=4)
LEAVES = st.one_of(
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": "number", "minimum": -1.5, "maximum": 99},
            {"type": "string", "pattern": "^[a-z]{1,4}$"},
            {"type": "string", "format": "date"},
            {"type": "string", "minLength": 2, "maxLength": 4},
            {"type": ["integer", "null"], "maximum": 1000, "minimum": 1},
        ]
    ),
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-1000, 1000),
        st.integers(0, 300),
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.one_of(st.integers(-9, 9), TEXTS, st.booleans(), st.none()), min_size=1, max_size=4),
    ),
    st.builds(lambda text: {"const": {"a": [text]}}, TEXTS),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        objects(children),
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least, "maxItems": least + 1},
            children,
            st.integers(0, 2),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(children, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


async def test_every_completed_output_of_any_schema_validates(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    running = engines()
    await running.load(tiny_model, max_sequences=16)
    event_loop = asyncio.get_running_loop()
    completed = 0

    async def run_all(schemas: list[dict[str, Any]]) -> None:
        await asyncio.gather(
            *(
                running.run(asking(f"r{n}", ConstraintKind.JSON_SCHEMA, schema, sampling={"seed": n}))
                for n, schema in enumerate(schemas)
            )
        )

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(st.lists(SCHEMAS, min_size=8, max_size=16))
    def check(schemas: list[dict[str, Any]]) -> None:
        nonlocal completed
        asyncio.run_coroutine_threadsafe(run_all(schemas), event_loop).result(60)
        for n, schema in enumerate(schemas):
            last = running.deltas[f"r{n}"][-1]
            assert last.error is None, (schema, last.error)
            if last.finish_reason is FinishReason.STOP:
                completed += 1
                jsonschema.validate(json.loads(running.text(f"r{n}")), schema)

    await asyncio.to_thread(check)
    assert completed > 80


TOOLLESS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize(("begins", "calls"), [("{", True), ("W", False)])
async def test_a_model_whose_template_knows_no_tools_calls_them_with_valid_json(
    running: RunningEngine, make_model: Any, begins: str, calls: bool
) -> None:
    other = type(running)()
    await other.load(make_model(template=TOOLLESS, context_length=2048))
    try:
        # A bias, with which the output begins as wanted; what follows is up to the grammar and chance.
        sampling = SamplingParams(seed=1, max_tokens=300, logit_bias={ord(begins): 30.0})
        messages = (ChatMessage(role="user", content="Add!"),)
        request = GenerateRequest(id="r", messages=messages, tools=(ADD,), parse_tool_calls=True, sampling=sampling)
        deltas = await other.run(request)
    finally:
        await other.engine.close()

    found = [call for delta in deltas for call in delta.tool_calls]
    if calls:
        [call] = found
        jsonschema.validate(json.loads(call.arguments), ADD["function"]["parameters"])  # type: ignore[index]
        assert deltas[-1].finish_reason is FinishReason.TOOL_CALLS
    else:
        assert found == []
        assert other.text("r").startswith(begins)
