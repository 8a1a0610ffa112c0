"""Rolling replacement: a model that runs gets another specification, one replica after another, without a gap."""

from msgspec.structs import replace

from xinfer_runtime.cluster.control_rows import ModelRow, ReplicaRow
from xinfer_runtime.cluster.demand_control import DemandControl
from xinfer_runtime.cluster.placement import NoFit
from xinfer_runtime.errors import DoesNotFit, ErrorInfo
from xinfer_runtime.models import ModelSpec, ReplicaState


class Rolling(DemandControl):
    """The table, with models that are being replaced: each replica stays until its successor is ready."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self._rolling: set[str] = set()

    def _replace(self, model: ModelRow, spec: ModelSpec, refusals: dict[str, ErrorInfo], now: float) -> None:
        """Raises DoesNotFit, and nothing changed, where not even one replica more has room."""
        before, known = model.spec, model.refusals
        model.spec = replace(spec, replica=before.replica, asleep=before.asleep)
        model.refusals = dict(refusals)
        try:
            if not before.asleep:
                self._spots(model.spec, [spec.wish(0)], now)
                self._resize(model, spec.replica, now, "the model is replaced")
        except DoesNotFit:
            model.spec, model.refusals = before, known
            raise
        model.spec = replace(spec, asleep=before.asleep)
        model.tell("INFO", now, "replacing its replicas, one after another")
        self._touched_models.add(spec.uid)
        self._rolling.add(spec.uid)

    def _roll(self, now: float) -> None:
        """Give the next replica of each such model its successor, once the one before has left."""
        for uid in sorted(self._rolling):
            model = self._models.get(uid)
            if model is None or model.draining or model.spec.asleep:
                self._rolling.discard(uid)
                continue
            if any(row.successor and not row.leaving for row in model.rows.values()):
                continue
            old = [row for row in model.staying() if row.want is not None and row.launched != model.spec.created]
            if not old:
                model.tell("INFO", now, "all of its replicas are replaced")
                self._touched_models.add(uid)
                self._rolling.discard(uid)
            else:
                self._roll_one(model, old[0], now)

    def _roll_one(self, model: ModelRow, row: ReplicaRow, now: float) -> None:
        row.wish = model.spec.wish(model.staying().index(row))
        if row.replica.state is not ReplicaState.READY:
            # Nobody uses it: it may go at once, and its place with it.
            self._unassign(row, "its model is replaced")
            return
        placement = self._place(model.spec, [row.wish])
        if isinstance(placement, NoFit):
            content = f"the replacement waits for room: {placement.message}"
            if model.events[-1].content != content:
                model.tell("WARNING", now, content)
                self._touched_models.add(model.spec.uid)
            return
        self._move(model, row, placement.spots[0], "its model is replaced")
