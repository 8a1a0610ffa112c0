"""Processes of a site: started as users start them, killed as fate does, found again wherever they hide."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil


class Program:
    """A long-running command that can be killed and started again. `prefix` goes before it, as `ip netns exec` does."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._command = [*prefix, *command]
        self._env = dict(env)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def set_env(self, **variables: str) -> None:
        self._env |= variables

    def start(self, *more: str) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *more], env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self, seconds: float = 30.0) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()


def below(folder: Path) -> Iterator[psutil.Process]:
    """All processes whose `XINFER_HOME` is below `folder`: everything of a site carries it in its environment."""
    mark = f"{folder}{os.sep}"
    for process in psutil.process_iter():
        try:
            if process.environ().get("XINFER_HOME", "").startswith(mark):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue


def replica_processes(folder: Path) -> Iterator[int]:
    """The replicas among them."""
    for process in below(folder):
        try:
            if any("replica_main" in argument for argument in process.cmdline()):
                yield process.pid
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue


def dask_workers(pid: int) -> list[int]:
    """The Dask workers that the nanny in process `pid` has."""
    try:
        children = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []
    return [child.pid for child in children if _is_spawned(child)]


def _is_spawned(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in argument or "forkserver" in argument for argument in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
