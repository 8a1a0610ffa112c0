"""`jupyter xinfer launch | list | scale | terminate`."""

import argparse
import json
import sys
from typing import Any

from jupyter_xinfer.cli.connection import connect, connection_options
from jupyter_xinfer.cli.engine_options import add_engine_options, engine_options

_LAUNCH_EXAMPLES = """\
examples:
  jupyter xinfer launch xinfer-demo
  jupyter xinfer launch --model-path /models/qwen2.5-7b-instruct-q4_k_m.gguf --replica 2
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _add_launch(commands)
    listing = _add(commands, "list", "models on the cluster", "jupyter xinfer list --json", list_models)
    listing.add_argument("--json", action="store_true", help="as the HTTP API gives them, for programs")
    more = _add(commands, "scale", "change how many replicas a model has", "jupyter xinfer scale xinfer-demo 3", scale)
    more.add_argument("model_uid")
    more.add_argument("replica", type=int, metavar="N")
    stop = _add(commands, "terminate", "stop models", "jupyter xinfer terminate xinfer-demo", terminate, ["stop"])
    stop.add_argument("model_uid", nargs="+")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_text: str,
    example: str,
    run: Any,
    aliases: list[str] | None = None,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help_text,
        aliases=aliases or [],
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=example if example.startswith("examples") else f"example:\n  {example}\n",
        parents=[connection_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, passes_options_on=False)
    return parser


def _add_launch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(commands, "launch", "launch a model", _LAUNCH_EXAMPLES, launch)
    parser.add_argument("model_name", nargs="?", metavar="NAME", help="a name of the catalog")
    parser.add_argument("--model-name", "-n", dest="model_name_option", metavar="NAME", help="the same, as an option")
    parser.add_argument("--model-path", metavar="FILE", help="a GGUF file on the nodes, instead of a name")
    parser.add_argument("--model-uid", "-u", metavar="UID", help="what to call it; by default its name")
    parser.add_argument("--model-type", "-t", default="LLM", metavar="TYPE", help="LLM, embedding or rerank")
    parser.add_argument("--model-engine", "-en", metavar="ENGINE")
    parser.add_argument("--model-format", "-f", metavar="FORMAT")
    parser.add_argument("--size-in-billions", "-s", dest="model_size_in_billions", metavar="N")
    parser.add_argument("--quantization", "-q")
    parser.add_argument("--replica", "-r", type=int, default=1, metavar="N", help="how many copies (default: 1)")
    parser.add_argument("--n-gpu", type=_gpu_count, default="auto", metavar="N", help='a number, "auto" or "none"')
    parser.add_argument("--context-length", type=int, metavar="N", help="in tokens")
    _add_placement(parser)
    add_engine_options(parser)
    parser.add_argument("--replace", action="store_true", help="in the place of the model of its uid, without a gap")
    parser.add_argument("--no-wait", action="store_true", help="return before it is ready")


def _add_placement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--worker-ip", metavar="NODE", help="the name or address of the node to run on")
    parser.add_argument("--gpu-idx", type=_positions, metavar="N,N", help="positions of the node's GPUs to use")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="only nodes with this label; may be repeated"
    )
    parser.add_argument("--pinned", action="store_true", help="replicas stay where they are")
    parser.add_argument(
        "--idle-timeout", type=float, metavar="SECONDS", help="unload after so long without a request, until the next"
    )
    parser.add_argument("--evictable", action="store_true", help="may be unloaded when another model needs its memory")
    parser.add_argument("--min-replicas", type=int, metavar="N", help="fewest replicas in quiet times (default: 1)")
    parser.add_argument("--max-replicas", type=int, metavar="N", help="most replicas, as many as the load needs")
    parser.add_argument(
        "--target-wait", type=float, metavar="SECONDS", help="for the first token, above which replicas are added"
    )


def _positions(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers with commas between them") from None


def _gpu_count(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return text if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor "auto" nor "none"') from None


def launch(arguments: argparse.Namespace, rest: list[str]) -> int:
    """The uid goes to stdout, the progress to stderr."""
    del rest
    from xinfer_runtime.client.launch_progress import TerminalLaunch
    from xinfer_runtime.labels import parse_labels

    with connect(arguments) as client:
        uid = client.launch_model(
            arguments.model_name or arguments.model_name_option,
            model_path=arguments.model_path,
            model_uid=arguments.model_uid,
            model_type=arguments.model_type,
            model_engine=arguments.model_engine,
            model_format=arguments.model_format,
            model_size_in_billions=arguments.model_size_in_billions,
            quantization=arguments.quantization,
            replica=arguments.replica,
            n_gpu=arguments.n_gpu,
            context_length=arguments.context_length,
            worker_ip=arguments.worker_ip,
            gpu_idx=arguments.gpu_idx,
            labels=parse_labels(",".join(arguments.label)) or None,
            pinned=arguments.pinned or None,
            idle_timeout=arguments.idle_timeout,
            evictable=arguments.evictable or None,
            min_replicas=arguments.min_replicas,
            max_replicas=arguments.max_replicas,
            target_wait=arguments.target_wait,
            wait_ready=False,
            replace=arguments.replace,
            **engine_options(arguments),
        )
        if not arguments.no_wait:
            try:
                client.wait_until_ready(uid, TerminalLaunch(sys.stderr))
            except KeyboardInterrupt:
                print(f"\nThe launch goes on. `jupyter xinfer stop {uid}` ends it.", end="", file=sys.stderr)
                raise
    print(uid)
    return 0


def list_models(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    from xinfer_runtime.client.calls import list_models_json

    with connect(arguments) as client:
        print(json.dumps(client.send(list_models_json()), indent=2) if arguments.json else client.list_models())
    return 0


def scale(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    with connect(arguments) as client:
        model = client.scale_model(arguments.model_uid, arguments.replica)
        print(f"{arguments.model_uid} has {model.ready_replicas} of {model.replica} replicas ready.")
    return 0


def terminate(arguments: argparse.Namespace, rest: list[str]) -> int:
    del rest
    with connect(arguments) as client:
        for uid in arguments.model_uid:
            client.terminate_model(uid)
            print(f"Stopped {uid}.")
    return 0
