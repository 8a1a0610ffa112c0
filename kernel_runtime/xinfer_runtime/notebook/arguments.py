"""The words of `%xinfer` and `%%xinfer`."""

import argparse
import shlex
from typing import NoReturn

from IPython.core.error import UsageError

_LINE_EXAMPLES = """\
examples:
  %xinfer launch xinfer-demo          launch a model and use it
  %xinfer list                        models on the cluster
  %xinfer use xinfer-demo             the model that %%xinfer prompts
  %xinfer stop xinfer-demo            stop a model
  %%xinfer --help                     how to prompt
"""
_CELL_EXAMPLES = """\
examples:
  %%xinfer
  What is the capital of France?

  %%xinfer xinfer-demo --temperature 0 -o answer
  Tell me a story.

  %%xinfer -t
  Explain this error: {{error}}
"""


class HelpShown(Exception):
    """The user asked for help and got it."""


class _Parser(argparse.ArgumentParser):
    """argparse that neither prints errors nor ends the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. {self.prog} --help has the options.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise HelpShown


def line_parser() -> argparse.ArgumentParser:
    """For `%xinfer`. The result has `command`, None for a bare `%xinfer`."""
    parser = _Parser(
        prog="%xinfer",
        description="Launch, list, use and stop models.",
        epilog=_LINE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    launch = commands.add_parser("launch", help="launch a model and use it", allow_abbrev=False)
    launch.add_argument("model_name", nargs="?", metavar="NAME", help="a name of the catalog")
    launch.add_argument("--path", dest="model_path", help="a GGUF file on the nodes, instead of a name")
    launch.add_argument("--uid", dest="model_uid", help="what to call it; by default its name")
    launch.add_argument("--type", dest="model_type", default="LLM", help="LLM, embedding or rerank")
    launch.add_argument("--engine", dest="model_engine")
    launch.add_argument("--format", dest="model_format")
    launch.add_argument("--size", dest="model_size_in_billions", help="billions of parameters")
    launch.add_argument("-q", "--quantization")
    launch.add_argument("-r", "--replica", type=int, default=1, help="how many copies")
    launch.add_argument("--n-gpu", type=gpu_count, default="auto", help='a number, "auto" or "none"')
    launch.add_argument("--context-length", type=int, help="in tokens")
    launch.add_argument("--speculation", help="off, prompt-lookup or draft-model")
    launch.add_argument("--draft-model", help="the smaller model that guesses: a name, or a GGUF file on the nodes")
    launch.add_argument(
        "--prefix-store-bytes", type=int, help="host memory for prefixes that the KV cache has no room for"
    )
    launch.add_argument("--no-wait", action="store_true", help="return before it is ready")
    commands.add_parser("list", help="models on the cluster, with their state and load")
    for name, help_text in (("stop", "stop a model"), ("logs", "what happened to a model")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("model", nargs="?", help="by default the model in use")
    use = commands.add_parser("use", help="choose the model that %%%%xinfer prompts, or tell which it is")
    use.add_argument("model", nargs="?")
    commands.add_parser("status", help="the server, its cluster and the model in use")
    commands.add_parser("clear", help="forget the conversation of %%%%xinfer --chat")
    commands.add_parser("help", help="show this")
    return parser


def cell_parser() -> argparse.ArgumentParser:
    """For `%%xinfer`."""
    parser = _Parser(
        prog="%%xinfer",
        description="Send the cell to a model and show the answer as it comes. Interrupting the kernel stops it.",
        epilog=_CELL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="?", help="by default the model in use, or the only one")
    parser.add_argument("-c", "--chat", action="store_true", help="continue the conversation")
    parser.add_argument("-t", "--template", action="store_true", help="put variables in place of {{name}}")
    parser.add_argument("-o", "--output", metavar="NAME", help="variable for the answer")
    parser.add_argument("--system", help="instructions that precede the conversation")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--stop", action="append", help="text that ends the answer; may be repeated")
    return parser


def gpu_count(text: str) -> int | str | None:
    """`--n-gpu`: a number, "auto", or "none" for the CPU."""
    if text == "auto":
        return text
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor "auto" nor "none"') from None


def split_words(line: str) -> list[str]:
    """Words as a shell would see them. Raises UsageError for a quote that is not closed."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"Cannot read the line: {error}.") from None


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """The long options of a parser."""
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
