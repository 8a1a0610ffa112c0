"""Replicas that outlasted what the controller knew of them: after its restart, or that of their node's Dask worker."""

from xinfer_runtime.cluster.control_rows import ModelRow, ReplicaRow
from xinfer_runtime.cluster.protocol import ReplicaReport
from xinfer_runtime.models import ReplicaState

ADOPTION_SECONDS = 5.0
"""What nodes are given to tell a new controller of the replicas that they still run, before it starts others. It waits
no longer than until all nodes told that were there before."""
_RUNNING = frozenset({ReplicaState.READY, ReplicaState.LOADING, ReplicaState.DOWNLOADING})


def row_to_adopt(model: ModelRow, address: str, reported: ReplicaReport) -> ReplicaRow | None:
    """The row that is to be the one of the process that the node at `address` reported; None for no row.

    A process counts for the launch that it was started for, and no other: the model may have been terminated and
    launched anew meanwhile. What nothing adopts, its node is told to end, as it is not among its wants.
    """
    if model.draining or model.spec.created != reported.launched or reported.replica.state not in _RUNNING:
        return None
    same = next((row for row in model.rows.values() if row.incarnation == reported.incarnation), None)
    if same is not None:
        return None if same.leaving or same.node == address else same
    free = [row for row in model.staying() if row.replica.state is not ReplicaState.READY and row.node != address]
    return min(free, key=lambda row: row.replica.id != reported.replica.id, default=None)
