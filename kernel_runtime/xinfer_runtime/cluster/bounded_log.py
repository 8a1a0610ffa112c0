"""A log file that cannot fill the disk: at its limit it becomes `<name>.1`, and the one before that is gone."""

import os
from contextlib import suppress
from pathlib import Path


def prune(folder: Path, keep: int) -> None:
    """Leave the `keep` logs of replicas in `folder` that were written last: replicas come and go."""
    with suppress(OSError):
        files = sorted(folder.glob("replica-*.log*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[keep:]:
            path.unlink(missing_ok=True)


class BoundedLog:
    """Appends to `path`, readable by its owner alone. All methods block: call them in a thread."""

    def __init__(self, path: Path, limit: int = 1 << 20) -> None:
        self._path = path
        self._limit = limit

    def append(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, data)
            full = os.fstat(handle).st_size > self._limit
        finally:
            os.close(handle)
        if full:
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
