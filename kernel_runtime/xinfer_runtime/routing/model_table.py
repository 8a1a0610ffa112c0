"""The table of models as the router sees it, and what to say while no replica of a model is ready."""

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Protocol

from xinfer_runtime.errors import ClusterUnavailable, ModelNotFound, ModelNotReady, ReplicaLost, from_info
from xinfer_runtime.models import ModelStatus, ReplicaState


class Credentials(Protocol):
    def client_context(self) -> ssl.SSLContext: ...


class ModelTable(Protocol):
    """What the router needs of a `ClusterSession`."""

    @property
    def models(self) -> Mapping[str, ModelStatus]: ...

    @property
    def connected(self) -> bool: ...

    @property
    def credentials(self) -> Credentials: ...

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]: ...

    async def tunnel(self, address: str) -> socket.socket: ...


def status_to_wait_for(table: ModelTable, uid: str, *, begun: bool) -> ModelStatus:
    """The model, where waiting for it makes sense. Raises ModelNotFound, ClusterUnavailable or ModelNotReady.

    `begun` is whether the request had a replica before.
    """
    status = table.models.get(uid)
    if status is None:
        if not table.connected:
            raise ClusterUnavailable("the cluster does not answer; what it runs is unknown until it does")
        if begun:
            raise ModelNotFound(f"the model {uid!r} was terminated while it answered")
        known = ", ".join(sorted(table.models)) or "none"
        raise ModelNotFound(f"no model {uid!r} runs; those that do: {known}", param="model")
    if status.state is ReplicaState.DRAINING:
        raise ModelNotFound(f"the model {uid!r} is being terminated", param="model")
    if status.state is ReplicaState.FAILED and _for_good(status):
        raise ModelNotReady(f"the model {uid!r} failed: {_message(status)}", param="model")
    return status


def not_ready(status: ModelStatus, seconds: float, *, begun: bool) -> ModelNotReady | ReplicaLost:
    """What to raise when no replica became ready within `seconds`."""
    text = f"no replica of {status.spec.uid!r} became ready within {seconds:.0f} s: {status.state}, {_message(status)}"
    return ReplicaLost(f"the replica was lost, and {text}") if begun else ModelNotReady(text, param="model")


def _for_good(status: ModelStatus) -> bool:
    """Whether no replica will be started again: the model's file or the launch is wrong, not the process."""
    errors = [replica.error for replica in status.replicas]
    return all(error is not None and from_info(error).status == 400 for error in errors)


def _message(status: ModelStatus) -> str:
    return next((replica.message for replica in status.replicas if replica.message), "no message")
