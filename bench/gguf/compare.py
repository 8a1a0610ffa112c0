"""The whole service beside its peers on the same GGUF files: `python bench/gguf/compare.py --llama-server PATH ...`.

Every repeat starts each server in turn with the same file and threads, sends it the same loads, and stops it. The
tables show medians over the repeats; llama-server gets the best of its slot settings: as many slots as streams, or 16
for more. `--batched-bench` adds what llama.cpp itself reaches without a server, `--python` (one with
`llama-cpp-python[server]`) its packaged server, `--example-server` its example server. Results go to a JSON file, and
with `--plot` to a picture.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peers
from peers import Setting
from stream_load import Endpoint, Load, run_beside_long_prompts, run_conversations, run_load

VOCABULARY = 31000
Start = Callable[[Setting], AbstractContextManager[Endpoint]]
Rows = dict[str, dict[str, list[dict[str, float]]]]
"""By load, then by server: the figures of each repeat."""


def servers(options: argparse.Namespace) -> dict[str, Start]:
    found: dict[str, Start] = {"jupyter-xinfer": peers.ours}
    if options.llama_server:
        found["llama-server"] = lambda setting: peers.llama_server(setting, options.llama_server)
    if options.python:
        found["llama_cpp.server"] = lambda setting: peers.packaged_server(setting, options.python)
    if options.python and options.example_server:
        found["example server"] = lambda setting: peers.packaged_server(setting, options.python, options.example_server)
    return found


def slot_settings(name: str, streams: int, most: int) -> list[int]:
    """The numbers of slots to try with so many streams. Ours has one setting for all of them."""
    if name != "llama-server":
        return [most]
    return [streams, 16] if streams > 16 else [streams]


def measure(options: argparse.Namespace, model: Path, rows: Rows, repeat: int) -> None:
    loads = [
        Load(streams, requests_for(options, streams), options.prompt, options.generate, options.temperature)
        for streams in options.streams
    ]
    most = max(options.streams)
    for name, start in servers(options).items():
        by_slots: dict[int, list[Load]] = defaultdict(list)
        for load in loads:
            for slots in slot_settings(name, load.streams, most):
                by_slots[slots].append(load)
        for slots, own in by_slots.items():
            label = f"{name}, {slots} slots" if name == "llama-server" else name
            setting = Setting(model, options.threads, options.context, slots, options.gpu, options.launch)
            with failures_shown(label), start(setting) as endpoint:
                peers.warm_up(endpoint)
                for load in own:
                    figures = asyncio.run(run_load(endpoint, load, seed(repeat, load), VOCABULARY))
                    rows[str(load)].setdefault(label, []).append(figures)
                    print(f"  {label}: {load}: {figures['tokens_per_s']:.0f} tokens/s", file=sys.stderr, flush=True)
                    time.sleep(options.pause)
    if options.batched_bench:
        for load in loads:
            setting = Setting(model, options.threads, options.context, load.streams, options.gpu)
            speed = peers.batched_bench(setting, options.batched_bench, load.prompt, load.generate)
            rows[str(load)].setdefault("llama-batched-bench", []).append({"total_tokens_per_s": speed})
            time.sleep(options.pause)


def measure_conversations(options: argparse.Namespace, model: Path, rows: Rows, repeat: int) -> None:
    streams = options.conversations
    setting = Setting(model, options.threads, 2048, streams, options.gpu, options.launch)
    for name, start in servers(options).items():
        with failures_shown(name), start(setting) as endpoint:
            peers.warm_up(endpoint)
            figures = asyncio.run(run_conversations(endpoint, streams, 4, 1000, 32, 32, repeat, VOCABULARY))
            rows[f"{streams} conversations"].setdefault(name, []).append(figures)


def measure_beside_long_prompts(options: argparse.Namespace, model: Path, rows: Rows, repeat: int) -> None:
    for streams in options.streams:
        context = max(options.long_prompts + 64, 512)
        setting = Setting(model, options.threads, context, streams + 1, options.gpu, options.launch)
        for name, start in servers(options).items():
            with failures_shown(name), start(setting) as endpoint:
                peers.warm_up(endpoint)
                figures = asyncio.run(
                    run_beside_long_prompts(endpoint, streams, options.long_prompts, 256, repeat, VOCABULARY)
                )
                rows[f"{streams} streams beside prompts of {options.long_prompts}"].setdefault(name, []).append(figures)
                print(f"  {name}: {streams} beside long prompts: {figures}", file=sys.stderr, flush=True)
            time.sleep(options.pause)


def requests_for(options: argparse.Namespace, streams: int) -> int:
    """Enough of them for one stream to be timed, few for many."""
    return int(options.requests or max(1, 8 // streams))


def seed(repeat: int, load: Load) -> int:
    return 1000 * repeat + load.streams


@contextlib.contextmanager
def failures_shown(name: str) -> Iterator[None]:
    """A server that fails is left out; the others are measured."""
    try:
        yield
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"  {name} failed: {error}", file=sys.stderr, flush=True)


def table(rows: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A line for each server with the medians of its figures, the best setting of a server only."""
    best: dict[str, dict[str, Any]] = {}
    for label, runs in rows.items():
        line = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        name = label.split(",")[0]
        if name not in best or line.get("tokens_per_s", 0) > best[name].get("tokens_per_s", 0):
            best[name] = {"server": label, **line}
    return list(best.values())


def show(model: str, load: str, lines: list[dict[str, Any]]) -> None:
    columns = ["tokens_per_s", "total_tokens_per_s", "ttft_p50", "ttft_p99", "gap_p50", "gap_p99", "long_ttft_p50"]
    print(f"\n{model}, {load} (times in ms)\n| | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for line in lines:
        cells = [f"{line[column]:.0f}" if column in line else "" for column in columns]
        print(f"| {line['server']} | " + " | ".join(cells) + " |", flush=True)


def plot(path: Path, results: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, every = pyplot.subplots(1, len(results), figsize=(4.2 * len(results), 3.4), squeeze=False)
    for axes, (model, loads) in zip(every[0], results.items(), strict=True):
        by_server: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for load, lines in loads.items():
            if " streams x " in load:
                for line in lines:
                    by_server[line["server"].split(",")[0]].append((int(load.split()[0]), line["total_tokens_per_s"]))
        for server, points in by_server.items():
            axes.plot(
                *zip(*sorted(points), strict=True),
                marker="o",
                label=server,
                linestyle="--" if "bench" in server else "-",
            )
        axes.set(title=model, xlabel="streams", xscale="log", ylim=0)
        axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    every[0][0].set_ylabel("prompt and generated tokens/s")
    every[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="15m-q8_0,15m-q4_0,125m-q8_0,125m-q4_0,0.5b-q8_0,0.5b-q4_0")
    parser.add_argument("--folder", type=Path, help="where the models are kept; by default they are written anew")
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16, 64])
    parser.add_argument("--requests", type=int, help="per stream; by default 8 for one stream, fewer for more")
    parser.add_argument("--conversations", type=int, default=0, help="multi-turn streams with 1,000 common tokens")
    parser.add_argument("--long-prompts", type=int, default=0, help="measure streams beside prompts of so many tokens")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--launch", default="{}", help="JSON with fields that a launch of ours is given besides")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between runs")
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--batched-bench", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--example-server", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is not installed")
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models.split(","):
            model = written(name, options.folder or Path(folder))
            rows: Rows = defaultdict(dict)
            for repeat in range(options.repeats):
                if options.long_prompts:
                    measure_beside_long_prompts(options, model, rows, repeat)
                    continue
                measure(options, model, rows, repeat)
                if options.conversations:
                    measure_conversations(options, model, rows, repeat)
            results[name] = {load: table(by_server) for load, by_server in rows.items()}
            for load, lines in results[name].items():
                show(name, load, lines)
            if options.json:
                options.json.write_text(json.dumps({"medians": results, "options": str(options)}, indent=1))
    if options.plot:
        plot(options.plot, results)


def written(name: str, folder: Path) -> Path:
    """The model such as `0.5b-q4_0` with random weights."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        shape, quantization = name.rsplit("-", 1)
        script = Path(__file__).parent.parent / "engine" / "random_model.py"
        subprocess.run([sys.executable, str(script), shape, str(path), "--quantization", quantization], check=True)
    return path


if __name__ == "__main__":
    main()
