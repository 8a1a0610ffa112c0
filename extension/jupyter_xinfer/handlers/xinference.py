"""What only Xinference's clients ask: instances of models, aborting a request, and the cluster in Xinference's words.

Xinference's supervisor is the Dask scheduler here, and its workers are Dask's.
"""

import time
from typing import Annotated, Any

from msgspec import Meta, Struct

from jupyter_xinfer.auth.permissions import ADMIN, MODELS_LIST, MODELS_READ
from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.cluster_nodes import workers_of
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.answers import Aborted, Instance, Node
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openapi import Takes
from jupyter_xinfer.protocol.xinference_objects import (
    cluster_objects,
    gpu_memory,
    instance_object,
    status_object,
)
from xinfer_runtime import __version__

_STARTED = time.monotonic()


class AbortRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of an abort. `block_duration`, in seconds, has no effect: ids of requests are never used again here."""

    block_duration: Annotated[float, Meta(ge=0)] = 30


class InstancesHandler(XinferHandler):
    @endpoint(MODELS_LIST, takes=Takes(query=("model_name", "model_uid")), gives=list[Instance])
    async def get(self) -> None:
        name, uid = self.get_query_argument("model_name", ""), self.get_query_argument("model_uid", "")
        found = [
            model
            for model in self.service.models.describe_all()
            if name in ("", model["model_name"]) and uid in ("", model["model_uid"])
        ]
        self.reply(
            [instance_object(self.service.models.status(model["id"]), model["model_ability"]) for model in found]
        )


class AbortHandler(XinferHandler):
    """Ends a request of the caller's own; an administrator may end anybody's. Those of others are not found."""

    @endpoint(MODELS_READ, takes=Takes(AbortRequest), gives=Aborted)
    async def post(self, uid: str, request_id: str) -> None:
        decode(self.request.body or b"{}", AbortRequest)
        self.service.models.status(uid)
        caller = current_principal()
        owner = None if ADMIN in caller.permissions else caller.id
        self.reply({"msg": "DONE" if self.service.requests.abort(uid, request_id, owner) else "NOT_FOUND"})


class VllmModelsHandler(XinferHandler):
    """The models that vLLM can serve here: none, since there is no vLLM engine."""

    @endpoint(MODELS_LIST)
    async def get(self) -> None:
        self.reply({"chat": [], "generate": []})


class ClusterHandler(XinferHandler):
    """What the routes about the cluster share. While no cluster was started, there are no workers."""

    async def workers(self) -> dict[str, dict[str, Any]]:
        return await workers_of(self.service.cluster.session)


class ClusterInfoHandler(ClusterHandler):
    @endpoint(ADMIN, gives=list[Node])
    async def get(self) -> None:
        self.reply(cluster_objects(self.service.cluster.scheduler, await self.workers()))


class VersionHandler(XinferHandler):
    @endpoint(ADMIN)
    async def get(self) -> None:
        self.reply({"version": __version__, "full-revisionid": None, "dirty": False, "error": None, "date": None})


class DevicesHandler(ClusterHandler):
    """How many GPUs the workers report."""

    @endpoint(MODELS_LIST, gives=int)
    async def get(self) -> None:
        self.reply(sum(len(gpu_memory(worker)) for worker in (await self.workers()).values()))


class WorkersHandler(ClusterHandler):
    """Each Dask worker, with the replicas on its machine."""

    @endpoint(ADMIN)
    async def get(self) -> None:
        running = [replica for model in self.service.models.describe_all() for replica in model["replicas"]]
        self.reply(
            [
                {
                    "work-ip": address,
                    "models": {each["replica_id"]: each for each in running if _host(each) == worker.get("host")},
                }
                for address, worker in (await self.workers()).items()
            ]
        )


class SupervisorHandler(XinferHandler):
    @endpoint(ADMIN)
    async def get(self) -> None:
        self.reply({"supervisor_ip": self.service.cluster.scheduler or ""})


class AddressHandler(XinferHandler):
    @endpoint(ADMIN)
    async def get(self) -> None:
        self.reply(self.service.cluster.scheduler or "")


def _host(replica: dict[str, Any]) -> str:
    return str(replica["address"]).rpartition(":")[0].strip("[]")


class StatusHandler(ClusterHandler):
    @endpoint(MODELS_LIST)
    async def get(self) -> None:
        self.reply(status_object(time.monotonic() - _STARTED, await self.workers()))
