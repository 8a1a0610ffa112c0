"""A soak: one replica under traffic of every kind for as long as you like, watched for what it loses or keeps.

    python -m tests.soak.run --minutes 20 --report soak.json

Every request has to end as it must: answered, refused with a reason, aborted or out of time. Memory and open files of
the replica's process are read once a minute; after the traffic every slot and cell has to be free, and of use again.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
from bench.engine.replica_memory import RunningReplica, specs
from tests.soak.traffic import Planned, Traffic

from xinfer_runtime.errors import DeadlineExceeded
from xinfer_runtime.messages import FinishReason, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec
from xinfer_runtime.routing.link import Link

SEQUENCES = 16
STREAMS = 24
"""More than run at once, so that some always wait."""
OPTIONS: dict[str, Any] = {"threads": 1, "kv_cells": 4096, "speculation": "prompt-lookup"}
"""Few cells, so that sequences are preempted."""
PATIENCE = 60.0
"""Seconds in which a request must say something, and the replica must be empty when nobody asks for anything."""


@dataclass
class Sample:
    """What the replica's process had at a time."""

    minute: float
    resident_mib: float
    open_files: int
    threads: int
    requests: int


@dataclass
class Report:
    minutes: float
    seed: int
    streams: int
    outcomes: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    samples: list[Sample] = field(default_factory=list)
    lost_slots: int = 0
    cells_in_use: int = 0
    """After the traffic."""
    problems: list[str] = field(default_factory=list)

    def growth(self, after: float) -> float:
        """MiB by which the memory is larger at the end than it ever was in the first `after` minutes."""
        early = [sample.resident_mib for sample in self.samples if sample.minute <= after]
        return self.samples[-1].resident_mib - max(early)


class Soak:
    """`STREAMS` callers, each with one request after another, at one replica."""

    def __init__(self, link: Link, process: psutil.Process, traffic: Traffic, report: Report) -> None:
        self._link = link
        self._process = process
        self._traffic = traffic
        self._report = report
        self._outcomes: Counter[str] = Counter()
        self._started = time.monotonic()

    async def run(self, seconds: float, every: float) -> None:
        """Traffic for so long, with a sample at so many seconds each."""
        self._sample()
        end = self._started + seconds
        callers = [asyncio.create_task(self._caller(end)) for _ in range(STREAMS)]
        due = self._started + every
        while (now := time.monotonic()) < end:
            await asyncio.sleep(min(due, end) - now)
            if time.monotonic() >= due:
                self._sample()
                due += every
        await asyncio.gather(*callers)
        await self._empty()
        await self._fill()
        await self._empty()
        self._sample()
        self._report.outcomes = dict(self._outcomes)

    async def _caller(self, end: float) -> None:
        while time.monotonic() < end:
            planned = self._traffic.draw()
            try:
                outcome = await asyncio.wait_for(self._ask(planned), PATIENCE)
            except TimeoutError:
                outcome = self._problem(planned, f"nothing more came for {PATIENCE:.0f} s")
            self._outcomes[outcome] += 1

    async def _ask(self, planned: Planned) -> str:
        request, text, deltas = planned.request, "", 0
        stream = self._link.submit(request)
        try:
            while planned.abort_after is None or deltas < planned.abort_after:
                delta = await stream.receive(request.id)
                deltas += 1
                text += delta.text
                self._report.tokens += len(delta.token_ids)
                if delta.error is not None:
                    return self._failed(planned, delta.error.code, delta.error.message)
                if delta.last:
                    return self._finished(planned, text, delta.finish_reason)
            return "aborted"
        finally:
            stream.abort()

    def _failed(self, planned: Planned, code: str, message: str) -> str:
        if code == DeadlineExceeded.code and planned.request.timeout is not None:
            return "out of time"
        if planned.refused and code in ("invalid_request", "context_length_exceeded"):
            return "refused"
        return self._problem(planned, f"{code}: {message}")

    def _finished(self, planned: Planned, text: str, reason: FinishReason | None) -> str:
        if planned.refused:
            return self._problem(planned, "it was answered, which it could not be")
        wrong = planned.check(text) if reason is FinishReason.STOP else ""
        return self._problem(planned, wrong) if wrong else str(reason)

    def _problem(self, planned: Planned, what: str) -> str:
        self._report.problems.append(f"{what} ({planned.request!r:.300})")
        return "problem"

    async def _fill(self) -> None:
        """Have every slot used at once."""
        most, done = 0, asyncio.Event()

        async def one(number: int) -> None:
            sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=200)
            stream = self._link.submit(GenerateRequest(id=f"fill {number}", prompt=f"{number}", sampling=sampling))
            while not done.is_set() and not (await stream.receive("fill")).last:
                pass
            stream.abort()

        tasks = [asyncio.create_task(one(number)) for number in range(2 * SEQUENCES)]
        end = time.monotonic() + PATIENCE
        while most < SEQUENCES and time.monotonic() < end:
            await asyncio.sleep(0.05)
            most = max(most, self._link.stats.running)
        done.set()
        await asyncio.gather(*tasks)
        self._report.lost_slots = max(self._report.lost_slots, SEQUENCES - most)

    async def _empty(self) -> None:
        """Wait until nothing runs."""
        for _ in range(int(PATIENCE / 0.05)):
            stats = self._link.stats
            if not stats.running + stats.waiting + stats.kv_used:
                break
            await asyncio.sleep(0.05)
        self._report.lost_slots = max(self._report.lost_slots, stats.running + stats.waiting)
        self._report.cells_in_use = max(self._report.cells_in_use, stats.kv_used)

    def _sample(self) -> None:
        with self._process.oneshot():
            sample = Sample(
                round((time.monotonic() - self._started) / 60, 2),
                round(self._process.memory_info().rss / (1 << 20), 1),
                self._process.num_fds(),
                self._process.num_threads(),
                self._outcomes.total(),
            )
        self._report.samples.append(sample)
        print(sample, file=sys.stderr, flush=True)


def demo_spec(options: dict[str, Any]) -> ModelSpec:
    spec = specs([], {"max_sequences": SEQUENCES})[0]
    return msgspec.structs.replace(spec, engine_options={**OPTIONS, **options})


async def run(minutes: float, seed: int, spec: ModelSpec, every: float = 60.0) -> Report:
    report = Report(minutes, seed, STREAMS)
    with tempfile.TemporaryDirectory() as folder:
        replica = RunningReplica(spec, Path(folder))
        try:
            process = await replica.ready()
            link = await replica.link()
            info = await replica.info()
            await Soak(link, process, Traffic(seed, info.context_length, info.vocab_size), report).run(
                60 * minutes, every
            )
            await link.close()
        finally:
            await replica.stop()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--engine-options", type=json.loads, default={}, help="as JSON, beside the soak's own")
    parser.add_argument("--report", type=Path, help="write the report here, as JSON")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments.minutes, arguments.seed, demo_spec(arguments.engine_options)))
    text = json.dumps(asdict(report), indent=1)
    print(text)
    if arguments.report:
        arguments.report.write_text(text + "\n")
    return 1 if report.problems or report.lost_slots or report.cells_in_use else 0


if __name__ == "__main__":
    sys.exit(main())
