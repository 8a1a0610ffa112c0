"""The servers under test, each started with the same file and threads, waited for, and stopped."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_load import Endpoint, complete

START_SECONDS = 180


@dataclass(frozen=True)
class Setting:
    """What every server gets: the file, CPU threads, tokens per sequence, sequences at once, whether to use a GPU."""

    model: Path
    threads: int
    context: int
    slots: int
    gpu: bool
    launch: str = "{}"
    """JSON with what a launch of ours is given besides."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}, start_new_session=True
        )
        try:
            yield started
        finally:
            started.send_signal(signal.SIGINT)
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def request(port: int, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    if data is not None:
        asked.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(asked, timeout=START_SECONDS) as answer:
        return json.load(answer)


def until_answers(started: "subprocess.Popen[bytes]", log: Path, port: int, path: str, **headers: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise RuntimeError(f"the server ended:\n{log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            request(port, path, **headers)
            return
        time.sleep(0.1)
    raise RuntimeError(f"no answer:\n{log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def ours(setting: Setting) -> Iterator[Endpoint]:
    """The whole service: Jupyter server, supervisor, replica, which chooses its threads itself."""
    port, token = free_port(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="bench-gguf-") as name:
        folder = Path(name)
        log = folder / "log"
        command = [sys.executable, "-m", "jupyter", "xinfer", "local", "--port", str(port), "--allow-root"]
        command += ["--ServerApp.answer_yes=True", "--ServerApp.log_level=ERROR", f"--ServerApp.root_dir={folder}"]
        folders = {"XINFER_HOME": "home", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTER_CONFIG_DIR": "config"}
        env = {key: str(folder / part) for key, part in folders.items()}
        with process(command, log, JUPYTER_TOKEN=token, **env) as started:
            headers = {"Authorization": f"token {token}"}
            until_answers(started, log, port, "/v1/models", **headers)
            launch = {
                "model_path": str(setting.model),
                "model_uid": "bench",
                "context_length": setting.context,
                "max_sequences": setting.slots,
                "n_gpu": "auto" if setting.gpu else None,
                **json.loads(setting.launch),
            }
            request(port, "/v1/models", launch, **headers)
            yield Endpoint(port, "bench", headers, {"ignore_eos": True})


@contextlib.contextmanager
def llama_server(setting: Setting, binary: Path) -> Iterator[Endpoint]:
    port = free_port()
    command = [str(binary), "-m", str(setting.model), "--port", str(port), "-t", str(setting.threads)]
    command += ["-np", str(setting.slots), "-c", str(setting.slots * setting.context)]
    command += ["-ngl", "99" if setting.gpu else "0", "--log-disable"]
    with tempfile.TemporaryDirectory(prefix="bench-gguf-") as folder:
        log = Path(folder) / "log"
        with process(command, log) as started:
            until_answers(started, log, port, "/health")
            yield Endpoint(port, "bench", fields={"ignore_eos": True})


@contextlib.contextmanager
def packaged_server(setting: Setting, python: Path, script: Path | None = None) -> Iterator[Endpoint]:
    """llama-cpp-python's `llama_cpp.server`, or its example server when `script` is its file."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-gguf-") as folder:
        log = Path(folder) / "log"
        if script is None:
            command = [str(python), "-m", "llama_cpp.server", "--model", str(setting.model), "--port", str(port)]
            command += ["--n_ctx", str(setting.context), "--n_threads", str(setting.threads)]
            command += ["--n_gpu_layers", "-1" if setting.gpu else "0", "--verbose", "false"]
        else:
            config = Path(folder) / "config.json"
            config.write_text(json.dumps(example_config(setting, port)))
            command = [str(python), str(script), "--config-file", str(config)]
        with process(command, log) as started:
            until_answers(started, log, port, "/v1/models")
            yield Endpoint(port, "bench")


def example_config(setting: Setting, port: int) -> dict[str, Any]:
    return {
        "server": {"host": "127.0.0.1", "port": port},
        "model": {
            "path": str(setting.model),
            "alias": "bench",
            "n_ctx": setting.context * setting.slots,
            "n_seq_max": setting.slots,
            "threads": setting.threads,
            "threads_batch": setting.threads,
            "n_gpu_layers": -1 if setting.gpu else 0,
        },
    }


def batched_bench(setting: Setting, binary: Path, prompt: int, generate: int) -> float:
    """Prompt and generated tokens per second of llama.cpp itself, without a server or a choice of tokens."""
    command = [str(binary), "-m", str(setting.model), "-t", str(setting.threads), "-npp", str(prompt)]
    command += ["-ntg", str(generate), "-npl", str(setting.slots), "-c", str(setting.slots * setting.context)]
    command += ["-ngl", "99" if setting.gpu else "0", "-no-kvu", "--output-format", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return float(row["speed"])


def warm_up(endpoint: Endpoint) -> None:
    asyncio.run(complete(endpoint, list(range(200, 232)), 8))
