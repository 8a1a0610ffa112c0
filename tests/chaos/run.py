"""Chaos: a site under a steady load, to which one fault after another happens, and then faults at random.

    python -m tests.chaos.run --minutes 30 --report docs/reliability.json

Every request has to complete with the right text or get a clear, retryable error; the report counts them.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.load import Load
from tests.chaos.site import Site

CALM = 2.0
"""Seconds of load between two faults."""


@dataclass
class Episode:
    """One fault: what was done, the seconds until the site was whole again, and what became of requests meanwhile."""

    fault: str
    done: str
    recovery: float
    counts: dict[str, int]
    problems: list[str]


@dataclass
class Report:
    minutes: float
    streams: int
    seed: int
    requests: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    episodes: list[Episode] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Faults after which the site was not whole again in time."""
    left_behind: list[str] = field(default_factory=list)
    seconds_p50: float = 0.0
    seconds_max: float = 0.0


async def run(
    folder: Path, minutes: float, streams: int, seed: int, pause: float, faults: Sequence[Fault] = FAULTS
) -> Report:
    """Every fault once in order, then at random until the time is over."""
    report = Report(minutes, streams, seed)
    rng = random.Random(seed)
    site = Site(folder)
    try:
        await site.start()
        load = Load(site.gateways, streams, pause)
        await load.learn()
        possible = []
        for fault in faults:
            why = fault.needs(site)
            if why:
                report.skipped[fault.name] = why
            else:
                possible.append(fault)
        load.start()
        started = time.monotonic()
        turn = 0
        while turn < len(possible) or time.monotonic() - started < 60 * minutes:
            fault = possible[turn] if turn < len(possible) else rng.choice(possible)
            turn += 1
            await asyncio.sleep(CALM)
            try:
                report.episodes.append(await _episode(site, load, fault, rng))
                print(_line(report.episodes[-1]), file=sys.stderr, flush=True)
            except Exception as error:  # what goes on is the load
                report.broken.append(f"{fault.name}: {error!r}")
                print(report.broken[-1], file=sys.stderr, flush=True)
        await load.stop()
        report.minutes = (time.monotonic() - started) / 60
        report.requests = dict(load.tally.counts)
        report.tokens = load.tally.tokens
        seconds = sorted(load.tally.seconds)
        report.seconds_p50, report.seconds_max = seconds[len(seconds) // 2], seconds[-1]
    finally:
        report.left_behind = await site.close()
    return report


async def _episode(site: Site, load: Load, fault: Fault, rng: random.Random) -> Episode:
    before, known = Counter(load.tally.counts), len(load.tally.problems)
    done = await fault.inject(site, rng)
    recovery = await site.whole()
    await site.accounted()
    counts = Counter(load.tally.counts)
    counts.subtract(before)
    return Episode(fault.name, done, recovery, {k: n for k, n in counts.items() if n}, load.tally.problems[known:])


def _line(episode: Episode) -> str:
    return f"{episode.done}: whole after {episode.recovery:.1f} s; {episode.counts} {episode.problems[:3]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--streams", type=int, default=6, help="users who ask at the same time (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between a user's questions")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", choices=[f.name for f in FAULTS])
    parser.add_argument("--folder", type=Path, help="keep logs here (default: a folder that goes away)")
    parser.add_argument("--report", type=Path, help="write the report here, as JSON")
    arguments = parser.parse_args()
    chosen = [fault for fault in FAULTS if not arguments.only or fault.name in arguments.only]
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        report = asyncio.run(run(folder, arguments.minutes, arguments.streams, arguments.seed, arguments.pause, chosen))
    text = json.dumps(asdict(report), indent=1)
    print(text)
    if arguments.report:
        arguments.report.write_text(text + "\n")
    return (
        0 if not report.left_behind and not report.broken and not {"lost", "other text"} & set(report.requests) else 1
    )


if __name__ == "__main__":
    sys.exit(main())
