"""What a router tells of its decisions, for metrics."""

from xinfer_runtime.messages import Priority
from xinfer_runtime.routing.choice import Choice


class RouterWatch:
    """What the metrics want to know; each is called as it happens. This one ignores all."""

    def routed(self, uid: str, choice: Choice) -> None:
        """A request was sent to a replica."""

    def queued(self, uid: str, priority: Priority, seconds: float) -> None:
        """A request got its replica after it had waited so long here, mostly 0."""

    def moved(self, uid: str, *, computed: bool) -> None:
        """A request left a replica that is to go, with what was `computed` of it or without."""

    def lost(self, uid: str, *, begun: bool) -> None:
        """A replica was lost with a request, which had `begun` to get its answer, or had not."""
