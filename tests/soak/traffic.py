"""Requests of every kind, drawn at random: sizes, samplers, schemas, deadlines, and some that cannot be served."""

import json
import random
from dataclasses import dataclass
from typing import Any

import jsonschema

from xinfer_runtime.messages import (
    ChatMessage,
    Constraint,
    ConstraintKind,
    DryParams,
    GenerateRequest,
    MirostatParams,
    Priority,
    SamplingParams,
)

SYSTEM = "You are a careful assistant. Answer the question as well as you can, and be brief. " * 4
QUESTIONS = ("Please count to 20.", "What is a notebook?", "Who are you?", "Tell me the numbers from 3 to 40.", "你好")
BROKEN: tuple[Constraint, ...] = (
    Constraint(ConstraintKind.JSON_SCHEMA, {"type": "no such type"}),
    Constraint(ConstraintKind.REGEX, "(unfinished"),
    Constraint(ConstraintKind.GRAMMAR, "root ::= nothing"),
)


@dataclass(frozen=True)
class Planned:
    """A request, and what is to become of it."""

    request: GenerateRequest
    abort_after: int | None = None
    """Deltas after which it is aborted, 0 at once; None for never."""
    refused: bool = False
    """Whether it is one that cannot be served."""

    def check(self, text: str) -> str:
        """What is wrong with a finished text; empty if nothing is."""
        constraint = self.request.constraint
        if constraint is None or constraint.kind is not ConstraintKind.JSON_SCHEMA:
            return ""
        try:
            jsonschema.validate(json.loads(text), constraint.value)
        except (ValueError, jsonschema.ValidationError) as error:
            return f"{text!r:.200} does not conform to its schema: {error!s:.200}"
        return ""


class Traffic:
    """Draws requests for a model with this context and vocabulary."""

    def __init__(self, seed: int, context_length: int, vocabulary: int) -> None:
        self._rng = random.Random(seed)
        self._context_length = context_length
        self._vocabulary = vocabulary
        self._number = 0

    def draw(self) -> Planned:
        rng = self._rng
        self._number += 1
        if rng.random() < 0.04:
            return self._unservable()
        constraint = self._constraint()
        request = GenerateRequest(
            id=str(self._number),
            sampling=self._sampling(stops=constraint is None),
            constraint=constraint,
            priority=Priority.BATCH if rng.random() < 0.2 else Priority.INTERACTIVE,
            timeout=rng.uniform(0.05, 3) if rng.random() < 0.05 else None,
            **self._prompt(),
        )
        # Most are aborted early, when they wait or their prompt is computed.
        aborted = rng.choice([0, 0, 1, 2, rng.randint(3, 60)]) if rng.random() < 0.25 else None
        return Planned(request, aborted)

    def _unservable(self) -> Planned:
        name = str(self._number)
        if self._rng.random() < 0.5:
            long = tuple(self._tokens(self._context_length + self._rng.randint(0, 500)))
            return Planned(GenerateRequest(id=name, token_ids=long), refused=True)
        return Planned(GenerateRequest(id=name, prompt="Hello", constraint=self._rng.choice(BROKEN)), refused=True)

    def _prompt(self) -> dict[str, Any]:
        rng = self._rng
        kind = rng.random()
        if kind < 0.4:
            system = (ChatMessage(role="system", content=SYSTEM),) if rng.random() < 0.5 else ()
            turns = [ChatMessage(role="user", content=rng.choice(QUESTIONS)) for _ in range(rng.randint(1, 4))]
            return {"messages": (*system, *turns)}
        if kind < 0.5:
            return {"prompt": "".join(rng.choices("abc xyz, ", k=rng.randint(0, 300)))}
        # One in so many is nearly as long as the context allows.
        longest = self._context_length // (2 if rng.random() < 0.1 else 10)
        return {"token_ids": tuple(self._tokens(rng.randint(1, longest)))}

    def _tokens(self, count: int) -> list[int]:
        """A beginning that others have too, and an end of its own."""
        common = self._rng.randint(0, count)
        start = self._rng.randint(0, 3)
        return [
            *(10 + start * 50 + index % 50 for index in range(common)),
            *(self._rng.randrange(10, self._vocabulary) for _ in range(count - common)),
        ]

    def _sampling(self, stops: bool) -> SamplingParams:
        rng = self._rng
        kinds: list[dict[str, Any]] = [
            {"temperature": 0},
            {"temperature": 0, "repetition_penalty": 1.1},
            {"temperature": 0.7, "top_p": 0.9, "seed": rng.randrange(1000)},
            {"temperature": 1.2, "top_k": 40, "min_p": 0.05, "logprobs": rng.randint(0, 5)},
            {"temperature": 0.9, "dry": DryParams(multiplier=0.8), "presence_penalty": 0.3},
            {"temperature": 0.9, "mirostat": MirostatParams(mode=2)},
            {"temperature": 0.8, "typical_p": 0.9, "xtc_probability": 0.3, "stop": ("the", "\n\n") if stops else ()},
        ]
        longest = 300 if rng.random() < 0.1 else 60
        return SamplingParams(max_tokens=rng.randint(1, longest), ignore_eos=rng.random() < 0.3, **rng.choice(kinds))

    def _constraint(self) -> Constraint | None:
        rng = self._rng
        kind = rng.random()
        if kind < 0.15:
            # Names of its own, so that hardly any schema comes twice.
            names = [f"{rng.choice(('name', 'size', 'color'))}_{rng.randrange(500)}" for _ in range(rng.randint(1, 4))]
            values = [{"type": "boolean"}, {"enum": ["red", "green", 3]}, {"type": "integer", "maximum": 9999}]
            properties = {name: rng.choice(values) for name in names}
            schema = {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
            return Constraint(ConstraintKind.JSON_SCHEMA, schema)
        if kind < 0.2:
            return Constraint(ConstraintKind.REGEX, rf"[a-f]{{{rng.randint(1, 9)}}}-\d+")
        if kind < 0.25:
            return Constraint(ConstraintKind.CHOICE, [f"choice {rng.randrange(100)}", "yes", "no"])
        return None
