"""`jupyter xinfer chat`: one answer, or a conversation, in the terminal."""

import argparse
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jupyter_xinfer.cli.connection import connect, connection_options

if TYPE_CHECKING:
    from xinfer_runtime.client import Model
    from xinfer_runtime.client.calls import Sampling

_EXAMPLES = """\
examples:
  jupyter xinfer chat                                   talk to the only model that runs
  jupyter xinfer chat xinfer-demo "What is 12 + 7?"     one answer
  cat report.txt | jupyter xinfer chat xinfer-demo      the prompt from a file

Ctrl-C stops an answer, Ctrl-D ends the conversation, /clear starts a new one.
"""
_INTERRUPTED = 130


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "chat",
        help="talk to a model",
        description="Talk to a model.",
        epilog=_EXAMPLES,
        parents=[connection_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model_uid", nargs="?", help="by default the only model that runs")
    parser.add_argument("prompt", nargs="?", help="answer this and end; without it, read the terminal or the pipe")
    parser.add_argument("--system", help="instructions that precede the conversation")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--max-tokens", type=int)
    parser.set_defaults(run=run, passes_options_on=False)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    with connect(arguments) as client:
        model = _choose(client, arguments.model_uid)
        conversation = Conversation(model, _sampling(arguments), arguments.system)
        prompt = arguments.prompt
        if prompt is None and not sys.stdin.isatty():
            prompt = sys.stdin.read()
        if prompt is not None:
            return 0 if conversation.ask(prompt) else _INTERRUPTED
        return _converse(conversation)


def _choose(client: Any, uid: str | None) -> "Model":
    from xinfer_runtime.errors import InvalidRequest, ModelNotFound

    models = {} if uid else client.list_models()
    if uid or len(models) == 1:
        found: Model = client.get_model(uid or next(iter(models)))
        return found
    if not models:
        raise ModelNotFound("No model is running. Launch one: jupyter xinfer launch xinfer-demo")
    raise InvalidRequest(f"Several models are running: {', '.join(models)}. Say which: jupyter xinfer chat NAME")


def _sampling(arguments: argparse.Namespace) -> "Sampling":
    sampling: Sampling = {}
    if arguments.temperature is not None:
        sampling["temperature"] = arguments.temperature
    if arguments.max_tokens is not None:
        sampling["max_tokens"] = arguments.max_tokens
    return sampling


class Conversation:
    """Messages so far, and how the next answer is made."""

    def __init__(self, model: "Model", sampling: "Sampling", system: str | None) -> None:
        self._model = model
        self._sampling = sampling
        self._start = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, Any]] = list(self._start)

    def clear(self) -> None:
        self.messages = list(self._start)

    def ask(self, prompt: str) -> bool:
        """Prints the answer as it comes. Ctrl-C stops it; then the partial answer is kept, and False returned."""
        from xinfer_runtime.client.printable import printable

        messages = [*self.messages, {"role": "user", "content": prompt}]
        answer, complete = None, True
        try:
            with self._model.chat(messages, stream=True, **self._sampling) as stream:
                try:
                    for text in stream:
                        print(printable(text), end="", flush=True)
                finally:
                    answer = stream.result
        except KeyboardInterrupt:
            complete = False
        print("" if complete else " (interrupted)")
        if answer is not None and answer.text:
            self.messages = [*messages, answer.message]
        return complete


def _converse(conversation: Conversation) -> int:
    from xinfer_runtime.errors import XinferError

    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401, it gives input() a history
    print(f"Talking to {conversation._model.uid}. Ctrl-C stops an answer, Ctrl-D ends, /clear starts anew.")
    while True:
        try:
            line = input("> ").strip()
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            return 0
        if line == "/clear":
            conversation.clear()
        elif line in ("/exit", "/quit"):
            return 0
        elif line:
            try:
                conversation.ask(line)
            except XinferError as error:
                print(f"jupyter xinfer: {error.message}", file=sys.stderr)
