"""Replicas of a running model: add some, remove one; and give up a launch."""

from typing import Any

from msgspec import Struct

from jupyter_xinfer.auth.permissions import MODELS_LIST, MODELS_START, MODELS_STOP
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.answers import Model, Remaining
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openapi import Takes
from jupyter_xinfer.protocol.xinference_objects import replica_status
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import Replica


class AddReplicas(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/models/{uid}/replicas`: `replica` more of them, like those there are."""

    replica: int = 1
    replica_config: Any = None
    model_engine: str | None = None
    n_gpu: int | str | None = None


class Scale(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/models/{uid}/scale`: how many replicas there are to be."""

    replica: int


class ScaleHandler(XinferHandler):
    @endpoint(MODELS_START, takes=Takes(Scale), gives=Model)
    async def post(self, uid: str) -> None:
        await self.service.scale(uid, decode(self.request.body, Scale).replica)
        self.reply(self.service.models.describe(uid))


class ReplicasHandler(XinferHandler):
    @endpoint(MODELS_LIST, gives=list[dict[str, Any]])
    async def get(self, uid: str) -> None:
        status = self.service.models.status(uid)
        created = int(status.spec.created)
        self.reply([replica_status(replica, index, created) for index, replica in enumerate(status.replicas)])

    @endpoint(MODELS_START, takes=Takes(AddReplicas))
    async def post(self, uid: str) -> None:
        request = decode(self.request.body or b"{}", AddReplicas)
        if request.replica < 1:
            raise InvalidRequest(f"`replica` must be at least 1, not {request.replica}.", param="replica")
        for name in ("replica_config", "model_engine", "n_gpu"):
            if getattr(request, name) is not None:
                raise InvalidRequest(
                    f"`{name}` cannot be given for one replica: all replicas of a model are alike.", param=name
                )
        added = [_replica_object(replica) for replica in await self.service.add_replicas(uid, request.replica)]
        self.reply(added[0] if request.replica == 1 and added else {"replica": len(added), "replicas": added})


class ReplicaHandler(XinferHandler):
    @endpoint(MODELS_STOP, gives=Remaining)
    async def delete(self, uid: str, replica_id: str) -> None:
        self.reply({"remaining_replicas": await self.service.remove_replica(uid, replica_id)})


class CancelHandler(XinferHandler):
    @endpoint(MODELS_STOP, gives=None)
    async def post(self, uid: str) -> None:
        await self.service.cancel_launch(uid)
        self.reply(None)


def _replica_object(replica: Replica) -> dict[str, str]:
    return {"replica_id": replica.id, "replica_model_uid": replica.id, "worker_address": replica.node}
