"""`jupyter xinfer worker`: this machine runs models of a cluster."""

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from jupyter_xinfer.cli.foreground import run_until_stopped

if TYPE_CHECKING:
    from xinfer_runtime.cluster.credentials import TlsCredentials

_EXAMPLES = """\
examples:
  jupyter xinfer worker --join xinfer-join-...   the first time, with a token of the supervisor's
  jupyter xinfer worker                          ever after
  jupyter xinfer worker --join -                 the token from standard input, where no other user sees it

The node's certificate and logs are kept in XINFER_HOME. It joins again by itself when the supervisor was away.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "worker",
        help="run models of a cluster on this machine",
        description="Join a cluster and run models of it on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--join", metavar="TOKEN", help="get credentials with this token first; - reads it from stdin")
    parser.add_argument(
        "--supervisor", "-s", metavar="ADDRESS", help="tls://host:port (default: where this home joined)"
    )
    parser.add_argument("--host", "-H", help="address at which others reach this machine (default: found out)")
    parser.add_argument("--name", help="name of the node in Dask")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="what launches may ask for; may be repeated"
    )
    parser.set_defaults(run=run, passes_options_on=False)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    from xinfer_runtime.cluster.authority import home_folder
    from xinfer_runtime.cluster.inventory import LABELS_VARIABLE
    from xinfer_runtime.cluster.node import serve_node
    from xinfer_runtime.labels import parse_labels

    if arguments.label:
        labels = parse_labels(",".join(arguments.label))
        # The node's processes inherit it.
        os.environ[LABELS_VARIABLE] = ",".join(f"{name}={value}" for name, value in labels.items())
    scheduler, credentials = _membership(arguments)

    async def serve(stop: asyncio.Event) -> None:
        await serve_node(home_folder(), scheduler, credentials, arguments.host, arguments.name, stop)

    return run_until_stopped(serve)


def _membership(arguments: argparse.Namespace) -> "tuple[str, TlsCredentials]":
    from xinfer_runtime.cluster.authority import find_addresses, find_credentials, home_folder, save_node
    from xinfer_runtime.cluster.join_tokens import JoinToken
    from xinfer_runtime.cluster.joining import join
    from xinfer_runtime.errors import InvalidRequest

    home = home_folder()
    if arguments.join:
        text = sys.stdin.readline() if arguments.join == "-" else arguments.join
        credentials, addresses = asyncio.run(join(JoinToken.decode(text)))
        save_node(home, credentials, addresses)
        print(f"This node has joined {addresses.scheduler}; its credentials are in {home / 'tls'}.", file=sys.stderr)
        return arguments.supervisor or addresses.scheduler, credentials
    found, known = find_credentials(home), find_addresses(home)
    if found is None:
        raise InvalidRequest(
            f"there are no credentials in {home / 'tls'}: run `jupyter xinfer join-token` on the supervisor, "
            "and here the line that it prints"
        )
    if arguments.supervisor is None and known is None:
        raise InvalidRequest("where the supervisor is is not known: give its address with --supervisor")
    return arguments.supervisor or (known.scheduler if known is not None else ""), found
