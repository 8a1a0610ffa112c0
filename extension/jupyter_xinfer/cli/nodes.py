"""`jupyter xinfer nodes`: what the machines of the cluster have and run."""

import argparse
import json
from typing import Any

from jupyter_xinfer.cli.connection import connect, connection_options

_EXAMPLES = """\
examples:
  jupyter xinfer nodes
  jupyter xinfer nodes --json
"""
_HEADINGS = ("node", "cores", "memory", "GPUs", "disk", "engines", "labels", "replicas")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "nodes",
        help="what the machines of the cluster have and run",
        description="What the machines of the cluster have and run: free memory and disk of all, for each.",
        epilog=_EXAMPLES,
        parents=[connection_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="as the HTTP API gives them, for programs")
    parser.set_defaults(run=run, passes_options_on=False)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    from xinfer_runtime.client.calls import Call

    with connect(arguments) as client:
        nodes = client.send(Call("GET", "xinfer/nodes", lambda body: json.loads(body)["nodes"]))
    if arguments.json:
        print(json.dumps(nodes, indent=2))
        return 0
    rows = [_HEADINGS, *map(_row, nodes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print("\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows))
    return 0


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    from xinfer_runtime.client.printable import printable
    from xinfer_runtime.client.table import format_bytes

    has = node["inventory"]
    gpus = [
        f"{gpu['name']} ({format_bytes(gpu['memory_free'])} of {format_bytes(gpu['memory_total'])})"
        for gpu in has.get("gpus", ())
    ]
    cells = (
        has["label"] + (" (drained)" if node["draining"] else ""),
        str(has["cpus"]),
        f"{format_bytes(has['memory_available'])} of {format_bytes(has['memory_total'])}",
        ", ".join(gpus) or "none",
        f"{format_bytes(has.get('disk_free', 0))} of {format_bytes(has.get('disk_total', 0))}",
        ", ".join(f"{name} {engine['version']}" for name, engine in (has.get("engines") or {}).items()) or "none",
        ", ".join(f"{name}={value}" for name, value in has.get("labels", {}).items()),
        ", ".join(node["replicas"]),
    )
    return tuple(map(printable, cells))
