"""`jupyter xinfer drain`: empty a node for maintenance, or use it again."""

import argparse

from jupyter_xinfer.cli.connection import connect, connection_options

_EXAMPLES = """\
examples:
  jupyter xinfer drain gpu-box-3
  jupyter xinfer drain gpu-box-3 --undo
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "drain",
        help="move all replicas away from a node",
        description="Move all replicas away from a node: each ends when another one is ready elsewhere.",
        epilog=_EXAMPLES,
        parents=[connection_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("node", help="its name as `jupyter xinfer list --json` shows it, or its worker's address")
    parser.add_argument("--undo", action="store_true", help="use the node again")
    parser.set_defaults(run=run, passes_options_on=False)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    import msgspec

    from xinfer_runtime.client.calls import Call

    def message(body: bytes) -> str:
        return str(msgspec.json.decode(body)["message"])

    body = {"node": arguments.node, "undo": arguments.undo}
    with connect(arguments) as client:
        print(client.send(Call("POST", "xinfer/drain", message, body=body, patient=True)))
    return 0
