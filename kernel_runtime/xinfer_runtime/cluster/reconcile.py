"""The controller's reconcile step, after every event: from what is wanted and what is to what has to be said to whom.

It looks at the models and nodes that the event touched. A tick looks at the rest of what may have changed meanwhile.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from xinfer_runtime.cluster.control_events import Instruction, Publish, SendSync
from xinfer_runtime.cluster.control_rows import ModelRow, ReplicaRow
from xinfer_runtime.cluster.control_table import ControlTable
from xinfer_runtime.cluster.hopeless import Hopeless
from xinfer_runtime.cluster.placement import NoFit, Placement
from xinfer_runtime.cluster.placement_refusal import gib
from xinfer_runtime.cluster.placement_room import Spot
from xinfer_runtime.cluster.protocol import Sync
from xinfer_runtime.models import ModelStatus, ReplicaState


class Reconciler(ControlTable):
    """The table, and what brings the cluster to it."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self._published: dict[str, ModelStatus] = {}
        self._generations = 0

    def _reconcile(self, now: float, *, place: bool, tick: bool) -> list[Instruction]:
        """What to do after an event was applied; `tick` also repeats what was not acknowledged. Replicas get places
        where `place` says so.
        """
        if place:
            self._place_unplaced(tick=tick)
        if tick or self._touched_models or self._touched_nodes:
            self._move_from_draining(now)
        self._forget_left()
        instructions: list[Instruction] = [*self._syncs(repeat=tick), *self._publications()]
        self._touched_models.clear()
        self._touched_nodes.clear()
        return instructions

    def _next_generation(self) -> int:
        """Counted over all nodes, so that no node ever sees a lower one, not even one that left and came back."""
        self._generations += 1
        return self._generations

    # ---- places

    def _place_unplaced(self, *, tick: bool) -> None:
        """What fitted nowhere before can only fit where something changed; a tick looks everywhere."""
        if not self._unplaced:
            return
        hosts = {node.report.inventory.host for a in self._touched_nodes if (node := self._nodes.get(a)) is not None}
        near = [address for address, node in self._nodes.items() if node.report.inventory.host in hosts]
        hopeless, hopeless_near = Hopeless(), Hopeless()
        for uid in sorted(self._unplaced):
            model = self._models.get(uid)
            rows = model.unplaced() if model is not None else []
            if model is None or not rows:
                self._unplaced.discard(uid)
            elif tick or uid in self._touched_models:
                self._place_rows(model, rows, None, hopeless)
            elif near:
                self._place_rows(model, rows, near, hopeless_near)

    def _place_rows(
        self, model: ModelRow, rows: list[ReplicaRow], addresses: list[str] | None, hopeless: Hopeless
    ) -> None:
        """All at once where they fit; else one by one, until one does not."""
        alike = rows if model.spec.wishes else rows[:1]
        covered = all(hopeless.covers(model.spec, row.wish) for row in alike)
        if covered and addresses is not None:
            return
        together = None if covered else self._place(model.spec, [row.wish for row in rows], addresses=addresses)
        if isinstance(together, Placement):
            for row, spot in zip(rows, together.spots, strict=True):
                self._assign(row, spot)
            return
        for number, row in enumerate(rows):
            if hopeless.covers(model.spec, row.wish):
                placement, message = None, f"no node has {gib(model.spec.memory_bytes)} free for it now"
            else:
                placement = self._place(model.spec, [row.wish], addresses=addresses) if len(rows) > 1 else together
                message = ""
            if isinstance(placement, Placement):
                self._assign(row, placement.spots[0])
                continue
            if placement is not None and not model.refusals:
                hopeless.add(model.spec, row.wish)
            if addresses is None:
                message = message if placement is None else placement.message
                for left in rows[number:]:
                    left.replica = replace(left.replica, message=message)
                    self._touch(left)
            if not model.spec.wishes:
                return

    def _move_from_draining(self, now: float) -> None:
        """A ready replica stays until another one of its model is ready elsewhere; any other simply moves."""
        for address in sorted(self._draining & self._nodes.keys()):
            node = self._nodes[address]
            for row in self._staying_on(address):
                model = self._models[row.replica.uid]
                if model.spec.pinned:
                    continue
                placement = self._place(model.spec, [row.wish])
                if isinstance(placement, NoFit):
                    continue
                model.tell("INFO", now, f"{row.replica.id}: moving away from {node.label}")
                self._move(model, row, placement.spots[0], f"{node.label} is being drained")

    def _move(self, model: ModelRow, row: ReplicaRow, spot: Spot, why: str) -> None:
        if row.replica.state is ReplicaState.READY:
            successor = self._add_row(model, row.wish)
            row.successor = successor.replica.id
            self._assign(successor, spot)
        else:
            self._unassign(row, why)
            self._assign(row, spot)

    # ---- ends

    def _forget_left(self) -> None:
        """Drop the leaving replicas that no node runs any more, and terminated models with their last replica."""
        for address in self._touched_nodes:
            node = self._nodes.get(address)
            if node is not None:
                self._touched_models |= {row.replica.uid for row in node.rows.values() if row.leaving}
                for incarnation in [each for each in node.moved if not node.runs(each)]:
                    del node.moved[incarnation]
                    self._views.pop(address, None)
        for uid in sorted(self._touched_models & self._models.keys()):
            model = self._models[uid]
            for row in list(model.rows.values()):
                node = self._nodes.get(row.node)
                if row.leaving and (node is None or not node.runs(row.incarnation)):
                    self._delete_row(model, row)
            if model.draining and not model.rows:
                del self._models[uid]

    # ---- what is said

    def _syncs(self, *, repeat: bool) -> Iterable[SendSync]:
        for address in list(self._nodes) if repeat else sorted(self._touched_nodes & self._nodes.keys()):
            node = self._nodes[address]
            changed = False
            if address in self._touched_nodes:
                wants = tuple(row.want for row in node.rows.values() if row.want is not None and not row.leaving)
                changed = wants != node.wants
                if changed:
                    node.generation = self._next_generation()
                    node.wants = wants
            late = repeat and not node.in_flight and (node.acked != node.generation or node.behind)
            if changed or late:
                node.in_flight = True
                yield SendSync(address, Sync(epoch=self.epoch, generation=node.generation, wants=node.wants))

    def _publications(self) -> Iterable[Publish]:
        for uid in sorted(self._touched_models):
            model = self._models.get(uid)
            if model is None:
                if self._published.pop(uid, None) is not None:
                    yield Publish(uid, None)
                continue
            status = model.status()
            if self._published.get(uid) != status:
                self._published[uid] = status
                yield Publish(uid, status)
