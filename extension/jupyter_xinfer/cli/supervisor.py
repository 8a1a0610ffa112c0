"""`jupyter xinfer supervisor`: the machine that knows which models run where, and lets nodes in."""

import argparse
import asyncio
import sys

from jupyter_xinfer.cli.foreground import run_until_stopped

_EXAMPLES = """\
examples:
  jupyter xinfer supervisor --host 10.0.0.1
  jupyter xinfer join-token                            then, in another terminal: a line for each new node
  jupyter xinfer local --scheduler tls://10.0.0.1:8786  JupyterLab on the same machine, with the cluster's models

State, and the CA that signs the nodes' certificates, are kept in XINFER_HOME.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "supervisor",
        help="start a cluster that nodes can join",
        description="Start a cluster: Dask's scheduler with the controller, and the endpoint where nodes join.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", "-H", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", "-p", type=int, default=8786, help="port of the scheduler (default: %(default)s)")
    parser.add_argument(
        "--join-port", type=int, default=8785, help="port where nodes get their credentials (default: %(default)s)"
    )
    parser.set_defaults(run=run, passes_options_on=False)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    from xinfer_runtime.cluster.authority import Addresses, home_folder
    from xinfer_runtime.cluster.supervisor import supervise

    def ready(addresses: Addresses) -> None:
        print(f"The supervisor is at {addresses.scheduler}; nodes join at {addresses.join}.", flush=True)
        print("`jupyter xinfer join-token` prints the line for a new node. Ctrl-C ends the cluster.", file=sys.stderr)

    async def serve(stop: asyncio.Event) -> None:
        await supervise(home_folder(), arguments.host, arguments.port, arguments.join_port, stop, ready)

    return run_until_stopped(serve)
