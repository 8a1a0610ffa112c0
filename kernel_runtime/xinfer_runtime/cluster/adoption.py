"""Replicas that outlasted what the controller knew of them: after its restart, or that of their node's Dask worker."""

from collections.abc import Iterable

from msgspec.structs import replace

from xinfer_runtime.cluster.control_rows import ModelRow, ReplicaRow
from xinfer_runtime.cluster.protocol import NodeReport, ReplicaReport
from xinfer_runtime.messages import ReplicaState

ADOPTION_SECONDS = 5.0
"""What nodes are given to tell a new controller of the replicas that they still run, before it starts others."""
_RUNNING = frozenset({ReplicaState.READY, ReplicaState.LOADING, ReplicaState.DOWNLOADING})


def adopt(models: Iterable[ModelRow], address: str, report: NodeReport) -> list[ReplicaRow]:
    """Give rows that have no ready process of their own to the processes in `report`; returns these rows.

    A process counts for the launch that it was started for, and no other: the model may have been terminated and
    launched anew meanwhile. What nothing adopts, its node is told to end, as it is not among its wants.
    """
    by_uid = {model.spec.uid: model for model in models if not model.draining}
    adopted = []
    for reported in report.replicas:
        model = by_uid.get(reported.replica.uid)
        if model is None or model.spec.created != reported.launched or reported.replica.state not in _RUNNING:
            continue
        row = _row_for(model, address, reported)
        if row is not None:
            _give(model, row, address, reported)
            adopted.append(row)
    return adopted


def _row_for(model: ModelRow, address: str, reported: ReplicaReport) -> ReplicaRow | None:
    same = next((row for row in model.rows.values() if row.incarnation == reported.incarnation), None)
    if same is not None:
        return None if same.leaving or same.node == address else same
    free = [row for row in model.staying() if row.replica.state is not ReplicaState.READY and row.node != address]
    return min(free, key=lambda row: row.replica.id != reported.replica.id, default=None)


def _give(model: ModelRow, row: ReplicaRow, address: str, reported: ReplicaReport) -> None:
    if row.replica.id != reported.replica.id:
        # The links of gateways know the process by its own name.
        del model.rows[row.replica.id]
        model.rows[reported.replica.id] = row
    row.node, row.incarnation, row.restarts = address, reported.incarnation, 0
    row.replica = replace(reported.replica, restarts=0)
