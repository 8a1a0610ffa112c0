"""What a caller gets where requests wait: the weight of his share, and whether interactive requests are his to make."""

from collections.abc import Mapping

from msgspec.structs import replace

from jupyter_xinfer.auth.principal import Principal
from xinfer_runtime.errors import InvalidRequest, PermissionDenied
from xinfer_runtime.messages import GenerateRequest, Priority
from xinfer_runtime.routing.fair_queue import Flow

MOST_WEIGHT = 1000.0


class FairShare:
    """`weights` by caller, such as `user:ann`, or by caller and model, `user:ann@xinfer-demo`. They go before the
    weight in the caller's limits; without any, it is 1.

    Raises `InvalidRequest` for a weight that is none.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        for name, weight in self._weights.items():
            if isinstance(weight, bool) or not 0 < weight <= MOST_WEIGHT:
                raise InvalidRequest(
                    f"XinferApp.share_weights[{name!r}] must be above 0 and at most {MOST_WEIGHT:.0f}."
                )

    def flow(self, caller: Principal, model: str) -> Flow:
        """Who shares the model's replicas as this caller."""
        own = caller.limits.weight or 1.0
        weight = self._weights.get(f"{caller.id}@{model}", self._weights.get(caller.id, own))
        return Flow(caller.id, weight)

    def classed(self, caller: Principal, request: GenerateRequest) -> GenerateRequest:
        """The request with the priority that it may have: a batch caller's requests are batch requests."""
        if caller.limits.priority is not Priority.BATCH or request.priority is Priority.BATCH:
            return request
        return replace(request, priority=Priority.BATCH)

    @staticmethod
    def require(caller: Principal, wanted: Priority | None) -> None:
        """Raise `PermissionDenied` for a request that asks for what its caller may not have."""
        if wanted is Priority.INTERACTIVE and caller.limits.priority is Priority.BATCH:
            raise PermissionDenied(f"{caller.name!r} may send batch requests only.", param="priority")
