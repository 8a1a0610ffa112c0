"""The desired table on disk: what brings the models back after a restart. It holds no secrets."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from xinfer_runtime.models import ModelSpec


class Desired(Struct, frozen=True):
    """What is wanted, and the labels of the nodes whose replicas may go on without a controller, None where that is not
    known.
    """

    version: int = 1
    models: tuple[ModelSpec, ...] = ()
    nodes: tuple[str, ...] | None = None


class DesiredTable:
    """The file `<home>/cluster/desired.json`. All methods block: call them in a thread.

    One controller owns the file at a time. A second cluster with the same home runs without it: the models of the first
    one are not to be started twice.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "cluster" / "desired.json"
        self._lock: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Become the owner until `release` or the end of the process; False where another process is."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self.path.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(self) -> Desired:
        """Empty where there is no file yet. Raises OSError or msgspec.MsgspecError for one that cannot be read."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Desired(nodes=())
        return msgspec.json.decode(data, type=Desired)

    def set_aside(self) -> Path:
        """Rename a file that cannot be read, so that it is neither lost nor in the way."""
        aside = self.path.with_suffix(".broken.json")
        os.replace(self.path, aside)
        return aside

    def save(self, desired: Desired) -> None:
        """Atomic: after a crash there is the old table or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = msgspec.json.format(msgspec.json.encode(desired), indent=2)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".desired-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except OSError:
            os.unlink(name)
            raise
