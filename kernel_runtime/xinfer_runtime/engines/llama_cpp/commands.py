"""What the engine loop can be told, through its queue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xinfer_runtime.engines.llama_cpp.adapters import NO_ADAPTER
from xinfer_runtime.engines.llama_cpp.generation import Generation
from xinfer_runtime.engines.llama_cpp.image_rows import PlacedRows
from xinfer_runtime.engines.llama_cpp.prefix_store import SavedPrefix
from xinfer_runtime.engines.llama_cpp.thread_choice import ThreadChoice


@dataclass(frozen=True)
class Start:
    """Run a request: `tokens` are its prompt and what it resumes from."""

    ticket: int
    generation: Generation
    tokens: list[int]
    singly_from: int | None
    adapter: str = NO_ADAPTER
    batch: bool = False
    moved: SavedPrefix | None = None
    """What another replica computed of the tokens."""
    images: Sequence[PlacedRows] = ()


@dataclass(frozen=True)
class Abort:
    """Drop a request."""

    ticket: int


@dataclass(frozen=True)
class Export:
    """Drop a request when all that it has generated is told, and `give` what was computed of it, or None."""

    ticket: int
    give: Callable[[SavedPrefix | None], None]


@dataclass(frozen=True)
class Stop:
    """End the loop."""


@dataclass(frozen=True)
class UseThreads:
    """Compute with these numbers of threads from now on, which are for so many cores."""

    threads: ThreadChoice
    cores: int


Command = Start | Abort | Export | Stop | UseThreads
