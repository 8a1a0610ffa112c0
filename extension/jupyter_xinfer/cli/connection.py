"""Which server a command talks to."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xinfer_runtime.client import Client


def connection_options() -> argparse.ArgumentParser:
    """A parent parser with the options of every command that talks to a server."""
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("server")
    group.add_argument("-e", "--endpoint", metavar="URL", help="by default the server that runs on this machine")
    group.add_argument(
        "-ak", "--api-key", metavar="KEY", help="better set XINFER_API_KEY: arguments are visible to other users"
    )
    return options


def connect(arguments: argparse.Namespace) -> "Client":
    from xinfer_runtime.client import Client

    return Client(arguments.endpoint, arguments.api_key)
