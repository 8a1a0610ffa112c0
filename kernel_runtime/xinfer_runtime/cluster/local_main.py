# mypy: allow-untyped-calls
"""The process of a local cluster: Dask's scheduler with the controller, and a nanny with one worker and its node agent.

Started by `local.LocalClusterProcess`, which holds its stdin and stdout (`local_protocol`).
"""

import asyncio
import logging
import os
import select
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import dask
import psutil
from distributed import LocalCluster
from distributed.protocol.pickle import dumps

from xinfer_runtime.cluster.agent import NodeAgent
from xinfer_runtime.cluster.child_process import take_standard_streams
from xinfer_runtime.cluster.controller import Controller
from xinfer_runtime.cluster.dask_options import DASK_CONFIG
from xinfer_runtime.cluster.local_protocol import (
    LOG_NAME,
    ClusterAddress,
    LocalClusterConfig,
    decode_config,
    encode_line,
)
from xinfer_runtime.logs import log_to_stderr

logger = logging.getLogger("xinfer.local")

_CLOSE_SECONDS = 12.0
_PARENT_POLL = 2.0
_LOG_LIMIT = 4 << 20
_LOG_POLL = 60.0
_SCRATCH_PREFIX = "xinfer-cluster-"


def main() -> None:
    """Run a local cluster until the end of stdin or SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = take_standard_streams()
    with os.fdopen(os.dup(requests), "rb", buffering=0) as stdin:
        line = stdin.readline()
    if not line:
        return
    config = decode_config(line)
    _log_to_file(Path(config.home) / "logs" / LOG_NAME)
    scratch = _new_scratch()
    try:
        asyncio.run(_run(config, requests, answers, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _run(config: LocalClusterConfig, requests: int, answers: int, scratch: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    threading.Thread(target=_await_end, args=(requests, config.parent, loop, stop), daemon=True).start()
    options = DASK_CONFIG | {"temporary-directory": str(scratch)}
    with dask.config.set(options):
        cluster = LocalCluster(
            asynchronous=True,
            processes=True,
            n_workers=1,
            threads_per_worker=max(1, (os.cpu_count() or 2) // 2),
            # What runs here is replicas, in processes of their own, which Dask's limits do not see.
            memory_limit=0,
            protocol="tls://",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            security=config.credentials.security(),
        )
        async with cluster:
            scheduler: Any = cluster.scheduler
            await scheduler.register_scheduler_plugin(Controller(config.home), idempotent=True)
            agent = NodeAgent(config.home)
            await scheduler.register_worker_plugin(None, dumps(agent), agent.name, idempotent=True)
            os.write(answers, encode_line(ClusterAddress(cluster.scheduler_address)))
            logger.info("the cluster is up at %s", cluster.scheduler_address)
            trimmer = asyncio.create_task(_trim_log())
            await stop.wait()
            trimmer.cancel()
            logger.info("closing the cluster")


def _await_end(requests: int, parent: int, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """In a thread of its own, so that nothing the loop does can keep the cluster alive: wait for the gateway's end."""
    while os.getppid() == parent:
        readable, _, _ = select.select([requests], [], [], _PARENT_POLL)
        if readable and not os.read(requests, 4096):
            break
    loop.call_soon_threadsafe(stop.set)
    threading.Event().wait(_CLOSE_SECONDS)
    logger.error("the cluster did not close within %.0f s: ending it by force", _CLOSE_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _log_to_file(path: Path) -> None:
    """Have everything that this process and its children print go to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    _trim()
    log_to_stderr()


def _trim() -> None:
    """Empty the log when it is full. Several processes append to it, so it cannot be renamed away."""
    if os.fstat(2).st_size > _LOG_LIMIT:
        os.ftruncate(2, 0)
        os.write(2, b"(the log was full and begins anew)\n")


async def _trim_log() -> None:
    while True:
        await asyncio.sleep(_LOG_POLL)
        _trim()


def _new_scratch() -> Path:
    """A folder for Dask's own files; those of clusters that were killed go away with this."""
    for old in Path(tempfile.gettempdir()).glob(f"{_SCRATCH_PREFIX}*"):
        pid = old.name.removeprefix(_SCRATCH_PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH_PREFIX}{os.getpid()}-"))


if __name__ == "__main__":
    main()
