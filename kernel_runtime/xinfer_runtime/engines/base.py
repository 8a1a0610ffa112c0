"""The interface between a replica process and the engine it runs.

An engine works in steps: one forward pass over every running sequence. It reports once per step, for all sequences
together, so that the cost of crossing threads and sockets is paid per step and not per token. Nothing above this
package knows an engine's name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.messages import Delta, ReplicaRequest
from xinfer_runtime.models import EngineStats, ModelInfo, ModelSpec

EmitStep = Callable[[Sequence[Delta]], None]
"""Takes what one engine step produced. Called on the event loop's thread, never from the engine's own."""

ReportProgress = Callable[[float, str], None]
"""Takes a fraction from 0 to 1 and a stage name. Called on the event loop's thread."""


class Engine(ABC):
    """One loaded model. All methods are called on the event loop's thread and none of them blocks it."""

    @abstractmethod
    async def load(self, spec: ModelSpec, emit: EmitStep, progress: ReportProgress) -> ModelInfo:
        """Load the model of `spec` and start the engine loop.

        Raises `ModelFileError` for a file that is missing, unreadable or no model, `InvalidRequest` for a spec that the
        engine cannot honour, `EngineError` for anything else.
        """

    def use_cores(self, cores: int) -> None:  # noqa: B027  (an engine that computes on none has nothing to do)
        """Use so many CPU cores at most, from now on; may come before `load`."""

    @abstractmethod
    def submit(self, request: ReplicaRequest, state: SequenceState | None = None) -> None:
        """Queue a request. Its outcome, errors included, comes through `emit`: one or more deltas, the last `last`.

        `state` is what another replica had computed of the same request up to `resume`. What does not fit this model is
        computed again.

        Raises `InvalidRequest` for a kind of request that this engine does not serve.
        """

    @abstractmethod
    def abort(self, request_id: str) -> None:
        """Drop a request at once and free its sequence. Unknown ids are ignored; nothing is emitted for it any more."""

    async def export_state(self, request_id: str) -> SequenceState | None:
        """Drop a request after all that it has generated went through `emit`, and give what was computed of it.

        None where nothing can be given, or not worth it; the request is dropped all the same, unless it has ended.
        """
        self.abort(request_id)
        return None

    @abstractmethod
    def stats(self) -> EngineStats:
        """The load right now."""

    @abstractmethod
    async def close(self) -> None:
        """Stop the loop and free the model. Requests in flight end with an `EngineError` delta."""
