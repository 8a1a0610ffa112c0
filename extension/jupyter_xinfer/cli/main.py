"""The command line. Each group of commands imports what it needs when it runs, so that `--help` is quick."""

import argparse
import os
import sys
from collections.abc import Sequence

from jupyter_xinfer.cli import chat, drain, join, keys, local, models, nodes, supervisor, usage, vectors, worker
from xinfer_runtime._version import __version__
from xinfer_runtime.errors import XinferError

OK, FAILED, INTERRUPTED = 0, 1, 130

_EXAMPLES = """\
examples:
  jupyter xinfer local --launch xinfer-demo      JupyterLab, with a model
  jupyter xinfer launch xinfer-demo              a model on the server that runs here
  jupyter xinfer chat xinfer-demo "Hello!"       one answer
  jupyter xinfer list --endpoint http://gpu-box:8888/

The commands that use models find the server that runs on this machine, or use --endpoint and XINFER_API_KEY.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter xinfer",
        description="LLM inference for notebooks: serve models next to JupyterLab, and use them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jupyter-xinfer {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (local, models, chat, vectors, supervisor, worker, join, nodes, drain, keys, usage):
        group.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. 0 is success, 1 a failure told in one line on stderr, 2 wrong usage, 130 an interrupt."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not arguments.passes_options_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        code: int = arguments.run(arguments, rest)
        sys.stdout.flush()
    except XinferError as error:
        print(f"jupyter xinfer: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has gone; Python must not try to flush into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code
