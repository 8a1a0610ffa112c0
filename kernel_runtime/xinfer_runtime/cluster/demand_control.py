"""What the use of models changes in the table: replicas come and go with the load, models sleep, wake and make room."""

from collections.abc import Mapping

from msgspec.structs import replace

from xinfer_runtime.cluster.control_rows import ModelRow
from xinfer_runtime.cluster.control_views import node_view
from xinfer_runtime.cluster.demand import Limits
from xinfer_runtime.cluster.node_reports import NodeReports
from xinfer_runtime.cluster.placement import NoFit, place
from xinfer_runtime.cluster.placement_room import Spot
from xinfer_runtime.cluster.protocol import DemandReport
from xinfer_runtime.errors import DoesNotFit, ErrorInfo
from xinfer_runtime.models import ModelSpec, ReplicaWish


class DemandControl(NodeReports):
    """The table as it follows the load."""

    def _demand_seen(self, report: DemandReport, now: float) -> None:
        for demand in report.demands:
            model = self._models.get(demand.uid)
            if model is not None:
                model.demand.seen(report.gateway, demand, now)

    def _follow_demand(self, now: float) -> bool:
        """Returns whether what is wanted changed."""
        changed = False
        for model in self._models.values():
            spec = model.spec
            if model.draining or spec.asleep:
                continue
            idle = spec.idle_timeout is not None and model.demand.idle_seconds(now) >= spec.idle_timeout
            if idle and not spec.pinned and model.ready():
                self._sleep(model, now, f"unloaded after {spec.idle_timeout:g} s without a request")
                changed = True
            elif spec.max_replicas is not None:
                changed |= self._follow_load(model, spec.max_replicas, now)
        return changed

    def _follow_load(self, model: ModelRow, most: int, now: float) -> bool:
        current = len(model.staying())
        limits = Limits(least=model.spec.min_replicas or 1, most=most, target=model.spec.target_wait)
        count = model.demand.replicas(current, limits, now, starting=not model.ready())
        if count == current:
            return False
        waited = model.demand.waited(now)
        why = f"requests waited {waited:.1f} s for their first token" if count > current else "requests hardly wait"
        try:
            self._resize(model, count, now, why)
        except DoesNotFit as error:
            content = f"one more replica has no room: {error.message}"
            if model.events[-1].content != content:
                model.tell("WARNING", now, content)
                self._touched_models.add(model.spec.uid)
            return False
        return True

    def _resize(self, model: ModelRow, count: int, now: float, why: str = "asked for") -> None:
        """Have `count` replicas. Raises DoesNotFit, and nothing changed, where there is no room for more."""
        more = count - len(model.staying())
        first = len(model.rows)
        if more > 0:
            wishes = [model.spec.wish(first + number) for number in range(more)]
            spots = self._spots(model.spec, wishes, now)
            self._add_rows(model, wishes, spots)
        for replica_id in model.superfluous(max(0, -more)):
            self._remove_row(model, replica_id)
        self._touched_models.add(model.spec.uid)
        if count != model.spec.replica:
            model.tell("INFO", now, f"from {model.spec.replica} to {count} replicas: {why}")
        model.spec = replace(model.spec, replica=count, asleep=False)

    def _remove_row(self, model: ModelRow, replica_id: str) -> None:
        """The replica leaves, and with it the one that it was to succeed."""
        for row in model.rows.values():
            if replica_id in (row.replica.id, row.successor):
                self._leave(row, "removed")

    # ---- sleep

    def _sleep(self, model: ModelRow, now: float, why: str) -> None:
        model.tell("INFO", now, why)
        model.spec = replace(model.spec, asleep=True)
        self._touched_models.add(model.spec.uid)
        for row in model.rows.values():
            if not row.leaving:
                self._leave(row, why)

    def _wake(self, model: ModelRow, now: float) -> bool:
        """Returns whether it slept. Raises DoesNotFit where there is no room for it."""
        model.demand.last_used = now
        if not model.spec.asleep:
            return False
        wishes = [model.spec.wish(number) for number in range(model.spec.replica)]
        spots = self._spots(model.spec, wishes, now)
        model.spec = replace(model.spec, asleep=False)
        model.tell("INFO", now, "loading again for a request")
        self._add_rows(model, wishes, spots)
        return True

    def _add_rows(self, model: ModelRow, wishes: list[ReplicaWish], spots: tuple[Spot, ...]) -> None:
        rows = [self._add_row(model, wish) for wish in wishes]
        for row, spot in zip(rows, spots, strict=False):
            self._assign(row, spot)

    # ---- making room

    def _spots(
        self,
        spec: ModelSpec,
        wishes: list[ReplicaWish],
        now: float,
        refusals: Mapping[str, ErrorInfo] | None = None,
    ) -> tuple[Spot, ...]:
        """Places for all of `wishes`; none where models are being unloaded for them, and they have to wait for that.

        Raises DoesNotFit where not even that helps.
        """
        placement = self._place(spec, wishes, refusals)
        if not isinstance(placement, NoFit):
            return placement.spots
        victims = self._victims(spec, wishes, now, refusals)
        if not victims:
            raise DoesNotFit(placement.message)
        for model in victims:
            self._sleep(model, now, f"unloaded to make room for {spec.uid}")
        return ()

    def _victims(
        self, spec: ModelSpec, wishes: list[ReplicaWish], now: float, refusals: Mapping[str, ErrorInfo] | None
    ) -> list[ModelRow]:
        """The models to unload so that `wishes` fit: idle ones whose owners allow it, least recently used first, and no
        more than it takes. None where that is not enough.
        """
        idle = [
            model
            for model in self._models.values()
            if model.spec.evictable
            and not (model.spec.pinned or model.spec.asleep or model.draining or model.spec.uid == spec.uid)
            and model.rows
            and not model.demand.requests(now)
        ]
        idle.sort(key=lambda model: model.demand.last_used)
        for count in range(1, len(idle) + 1):
            if self._fits_without(spec, wishes, idle[:count], refusals):
                needed = idle[:count]
                for model in idle[: count - 1]:
                    rest = [each for each in needed if each is not model]
                    if self._fits_without(spec, wishes, rest, refusals):
                        needed = rest
                return needed
        return []

    def _fits_without(
        self,
        spec: ModelSpec,
        wishes: list[ReplicaWish],
        models: list[ModelRow],
        refusals: Mapping[str, ErrorInfo] | None,
    ) -> bool:
        gone = {row.incarnation for model in models for row in model.rows.values()}
        touched = {row.node for model in models for row in model.rows.values()}
        views = [
            node_view(address, node, without=gone) if address in touched else self._view(address)
            for address, node in self._nodes.items()
        ]
        model = self._models.get(spec.uid)
        known = (model.refusals if model is not None else {}) if refusals is None else refusals
        reasons = {address: info.message for address, info in known.items()}
        return not isinstance(place(spec, views, wishes, refusals=reasons), NoFit)
