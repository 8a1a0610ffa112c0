"""`jupyter xinfer embed | rerank`: vectors and rankings, for shells and pipes."""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import islice

from jupyter_xinfer.cli.connection import connect, connection_options
from xinfer_runtime.errors import InvalidRequest

BATCH = 256
"""Lines of standard input that go into one request."""

_EMBED_EXAMPLES = """\
examples:
  jupyter xinfer embed minilm "A man is eating food."        its vector, as JSON
  jupyter xinfer embed minilm < lines.txt > vectors.jsonl    one vector for each line
"""
_RERANK_EXAMPLES = """\
examples:
  jupyter xinfer rerank bge "What do pandas eat?" "Bamboo." "A bear is an animal."
  jupyter xinfer rerank bge "What do pandas eat?" --top-n 3 < lines.txt
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    embed = _add(commands, "embed", "make vectors of texts", _EMBED_EXAMPLES)
    embed.add_argument("text", nargs="*", help="without any, the lines of standard input")
    embed.add_argument("--dimensions", type=int, metavar="N", help="keep the first N numbers")
    embed.set_defaults(run=run_embed)
    rerank = _add(commands, "rerank", "rank documents by a query", _RERANK_EXAMPLES)
    rerank.add_argument("query")
    rerank.add_argument("document", nargs="*", help="without any, the lines of standard input")
    rerank.add_argument("--top-n", type=int, metavar="N", help="only the best N")
    rerank.set_defaults(run=run_rerank)
    for parser in (embed, rerank):
        parser.add_argument("--truncate", action="store_true", help="cut what is too long, instead of refusing it")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help_text: str, examples: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=examples,
        parents=[connection_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model_uid")
    parser.set_defaults(passes_options_on=False)
    return parser


def run_embed(arguments: argparse.Namespace, rest: list[str]) -> int:
    """One line of JSON for each text, in their order."""
    del rest
    with connect(arguments) as client:
        model = client.get_model(arguments.model_uid)
        lines = iter(arguments.text or _lines())
        while batch := list(islice(lines, BATCH)):
            for vector in model.embed(batch, dimensions=arguments.dimensions, truncate=arguments.truncate):
                print(json.dumps(vector))
    return 0


def run_rerank(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Scores and documents, with a tab between them, the best first."""
    del rest
    with connect(arguments) as client:
        model = client.get_model(arguments.model_uid)
        documents = arguments.document or _lines()
        for each in model.rerank(arguments.query, documents, top_n=arguments.top_n, truncate=arguments.truncate):
            print(f"{each.score:.6f}\t{each.document}")
    return 0


def _lines() -> Sequence[str]:
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    if not lines:
        raise InvalidRequest("Standard input has no text.")
    return lines
