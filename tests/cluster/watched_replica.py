"""A program: a replica process which notes, before anything else, which of those that started before it still run.

`watched_replica.py FOLDER` writes their process ids into `FOLDER/PID`.
"""

import os
import sys
from pathlib import Path

import psutil


def note(folder: Path) -> None:
    running = [path.name for path in folder.iterdir() if _runs(int(path.name))]
    (folder / str(os.getpid())).write_text(" ".join(running))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    note(Path(sys.argv[1]))
    from xinfer_runtime.cluster.replica_main import main

    main()
