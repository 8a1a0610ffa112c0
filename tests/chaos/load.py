"""A steady load of concurrent streams, each answer compared with the text that an undisturbed model gives."""

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.chaos.site import MODEL, Gateway

_COUNTED = {"type": "array", "items": {"enum": list(range(1, 101))}, "minItems": 60, "maxItems": 60}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


QUESTIONS: dict[str, dict[str, Any]] = {
    "Please count to 100.": {},
    "Give me the numbers from 1 to 90.": {"temperature": 1.0, "seed": 5},
    "Please count to 99.": {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "write",
                    "parameters": _object(text={"type": "string", "pattern": "^1, 2, 3, 4, 5(, [0-9]{1,2}){70}$"}),
                },
            }
        ],
        "tool_choice": "required",
    },
    "Tell me the numbers from 11 to 99.": {},
    "Please count to 80.": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "counted", "schema": _object(numbers=_COUNTED), "strict": True},
        }
    },
}
"""Prompts, and the other fields of their requests: plain, seeded, a tool call, a JSON schema. The answers have some 300
tokens, of which the model is sure: rounding, which depends on what else is computed in the same pass, changes none of
them, and whatever is missing or repeated shows."""
RETRY_SECONDS = 0.5
HUNG_SECONDS = 80.0
_RETRYABLE = {429, 503}


@dataclass
class Tally:
    """What became of the requests. `problems` describes each that did not simply complete."""

    counts: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, outcome: str, problem: str = "") -> None:
        self.counts[outcome] += 1
        if problem:
            self.problems.append(f"{outcome}: {problem}")


class NotServedError(Exception):
    """A request that did not complete; `outcome` is how it counts."""

    def __init__(self, outcome: str, problem: str) -> None:
        super().__init__(problem)
        self.outcome = outcome


class Load:
    """`streams` users, who each ask one question after another, at one server after another.

    Outcomes: `completed`; `other text`; `retryable` (429 or 503 with a reason, before or within the answer, asked
    again); `server gone` (the Jupyter server that had the request was killed, asked again elsewhere); `lost` (anything
    else: an unclear error, a connection that ended by itself, silence).
    """

    def __init__(self, gateways: list[Gateway], streams: int, pause: float) -> None:
        self.tally = Tally()
        self._gateways = gateways
        self._streams = streams
        self._pause = pause
        self._texts: dict[str, str] = {}
        self._turn = itertools.count()
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def learn(self) -> None:
        """Get the text of each question while nothing is wrong and nobody else asks."""
        for prompt in QUESTIONS:
            self._texts[prompt], _ = await _ask(self._gateways[0], prompt)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._user(number)) for number in range(self._streams)]

    async def stop(self) -> None:
        """Let every user finish the answer that he is getting."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _user(self, number: int) -> None:
        for prompt in itertools.islice(itertools.cycle(QUESTIONS), number % len(QUESTIONS), None):
            if self._stop.is_set():
                return
            await self._until_answered(prompt)
            await asyncio.sleep(self._pause)

    async def _until_answered(self, prompt: str) -> None:
        started = time.monotonic()
        for _ in range(200):
            gateway = self._next_gateway()
            try:
                text, tokens = await asyncio.wait_for(_ask(gateway, prompt), HUNG_SECONDS)
            except TimeoutError:
                self.tally.add("lost", f"nothing for {HUNG_SECONDS:.0f} s")
                return
            except NotServedError as error:
                outcome = error.outcome
                if outcome == "cut off" and gateway.killed_at > started - HUNG_SECONDS and gateway.killed_at:
                    outcome = "server gone"
                self.tally.add("lost" if outcome == "cut off" else outcome, f"{gateway.program.name}: {error}")
                if outcome not in ("retryable", "server gone"):
                    return
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.tally.tokens += tokens
            self.tally.seconds.append(time.monotonic() - started)
            good = text == self._texts[prompt]
            self.tally.add(
                "completed" if good else "other text", "" if good else _difference(self._texts[prompt], text)
            )
            return
        self.tally.add("lost", "200 tries")

    def _next_gateway(self) -> Gateway:
        up = [gateway for gateway in self._gateways if gateway.up] or self._gateways
        return up[next(self._turn) % len(up)]


async def _ask(gateway: Gateway, prompt: str) -> tuple[str, int]:
    """The answer, tool calls and the reason of its end included, and the count of its tokens. Raises NotServedError."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 600,
        "stream": True,
        "stream_options": {"include_usage": True},
    } | QUESTIONS[prompt]
    text, tokens, finished = "", 0, ""
    try:
        async with gateway.client.stream("POST", "v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                told = (await response.aread()).decode(errors="replace")
                raise NotServedError("retryable" if response.status_code in _RETRYABLE else "lost", told[:400])
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    code = event["error"].get("code")
                    outcome = "retryable" if code in ("replica_lost", "model_not_ready", "overloaded") else "lost"
                    raise NotServedError(outcome, json.dumps(event["error"])[:400])
                if event.get("usage"):
                    tokens = event["usage"]["completion_tokens"]
                for choice in event["choices"]:
                    text += choice["delta"].get("content") or ""
                    for call in choice["delta"].get("tool_calls") or ():
                        text += call["function"].get("name", "") + call["function"].get("arguments", "")
                    finished += choice["finish_reason"] or ""
    except httpx.HTTPError as error:
        raise NotServedError("cut off", repr(error)) from error
    if not finished:
        raise NotServedError("cut off", "the stream ended without a finish_reason")
    return f"{text} ({finished})", tokens


def _difference(expected: str, found: str) -> str:
    pairs = zip(expected, found, strict=False)
    at = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(found)))
    return f"after {at} characters {found[at : at + 60]!r} instead of {expected[at : at + 60]!r}"
