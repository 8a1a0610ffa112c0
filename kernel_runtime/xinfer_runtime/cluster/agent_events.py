"""What happens to a node's replicas (events), and what the node agent does about it (instructions).

A `process` is the agent's own number for one life of a replica process.
"""

import signal
from dataclasses import dataclass

from xinfer_runtime.cluster.last_words import last_words
from xinfer_runtime.cluster.protocol import ReplicaWant, Sync
from xinfer_runtime.errors import ErrorInfo
from xinfer_runtime.models import ModelInfo

DOWNLOADING = "downloading"
"""The stage of a replica whose file comes from a hub."""


@dataclass(frozen=True, slots=True)
class Synced:
    """The controller said what the node is to run."""

    sync: Sync


@dataclass(frozen=True, slots=True)
class Listening:
    process: int
    pid: int
    address: str


@dataclass(frozen=True, slots=True)
class Progressed:
    process: int
    progress: float
    stage: str
    bytes_done: int = 0
    bytes_total: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    process: int
    info: ModelInfo


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model was not loaded. The process still has to end, with `Exited`."""

    process: int
    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Beat:
    """The process says that it lives."""

    process: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone; `returncode` as subprocess has it, None where it never started. `tail` ends its stderr."""

    process: int
    returncode: int | None
    tail: str = ""


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The node goes away: end everything, giving streams `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Woke:
    """The time that `next_wakeup` gave has come."""


Line = Listening | Progressed | Ready | LoadFailed | Beat
Event = Synced | Line | Exited | ShutDown | Woke


@dataclass(frozen=True, slots=True)
class Start:
    process: int
    want: ReplicaWant
    token: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Have the process finish its streams within `seconds` and end."""

    process: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Kill:
    process: int


Instruction = Start | Drain | Kill


def describe_exit(event: Exited) -> str:
    """How a process ended, and the last lines it wrote, for people."""
    if event.returncode is None:
        how = "it could not be started"
    elif event.returncode < 0:
        how = f"signal {-event.returncode}"
        if event.returncode == -signal.SIGKILL:
            how += ", as when the system runs out of memory"
    else:
        how = f"exit code {event.returncode}"
    said = last_words(event.tail)
    return f"{how}: {said}" if said else how
