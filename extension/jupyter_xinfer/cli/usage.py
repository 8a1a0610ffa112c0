"""`jupyter xinfer usage`: who used which model for how many tokens."""

import argparse
import json
import logging
import os
import re
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from xinfer_runtime.errors import InvalidRequest

if TYPE_CHECKING:
    from jupyter_xinfer.auth.ledger import UsageRow

_EXAMPLES = """\
examples:
  jupyter xinfer usage                           the last 30 days, by caller and model
  jupyter xinfer usage --days 7 --by day
  jupyter xinfer usage --json
"""
_KEYS = ("caller", "model", "day", "hour")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "usage",
        help="show who used how many tokens",
        description="Requests and tokens of the server whose state is in XINFER_HOME. Times are UTC.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--days", type=float, default=30, metavar="N", help="how far back to look (default: 30)")
    parser.add_argument(
        "--by",
        default="caller,model",
        metavar="KEYS",
        help=f"rows by these: {', '.join(_KEYS)} (default: caller,model)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run, passes_options_on=False)


def totals(rows: "list[UsageRow]", by: list[str]) -> list[tuple[tuple[str, ...], tuple[int, int, int]]]:
    """(key, (requests, prompt tokens, completion tokens)), sorted by key."""
    found: dict[tuple[str, ...], tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for row in rows:
        at = datetime.fromtimestamp(row.hour, UTC)
        values = {"caller": row.caller, "model": row.model, "day": f"{at:%Y-%m-%d}", "hour": f"{at:%Y-%m-%dT%H:00Z}"}
        key = tuple(values[name] for name in by)
        before = found[key]
        found[key] = (
            before[0] + row.requests,
            before[1] + row.prompt_tokens,
            before[2] + row.completion_tokens,
        )
    return sorted(found.items())


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    from jupyter_xinfer.auth.ledger import Ledger

    by = re.split(r"\s*,\s*", arguments.by)
    if unknown := [name for name in by if name not in _KEYS]:
        raise InvalidRequest(f"--by: there is no key {unknown[0]!r}. There are: {', '.join(_KEYS)}.")
    home = os.environ.get("XINFER_HOME")
    ledger = Ledger(Path(home).expanduser() if home else Path.home() / ".xinfer", logging.getLogger(__name__))
    result = totals(ledger.rows(time.time() - arguments.days * 86_400), by)
    columns = ("requests", "prompt_tokens", "completion_tokens")
    if arguments.json:
        facts = [{**dict(zip(by, key, strict=True)), **dict(zip(columns, sums, strict=True))} for key, sums in result]
        print(json.dumps(facts, indent=2))
        return 0
    table = [(*by, "requests", "prompt tokens", "completion tokens")]
    table += [(*key, *(f"{number:,}" for number in sums)) for key, sums in result]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [
            cell.ljust(width) if column < len(by) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    return 0
