"""Managing models: list, launch, describe, watch, terminate."""

import asyncio

import msgspec

from jupyter_xinfer.auth.node_files import files_of_launch
from jupyter_xinfer.auth.permissions import MODELS_LIST, MODELS_READ, MODELS_START, MODELS_STOP
from jupyter_xinfer.auth.principal import current_principal
from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.handlers.event_stream import EventStream
from jupyter_xinfer.protocol.answers import Happened, Launched, Model, ModelList, Progress, ServerInfo
from jupyter_xinfer.protocol.launch_body import as_sent, launch_request
from jupyter_xinfer.protocol.model_objects import event_objects, progress_object
from jupyter_xinfer.protocol.openapi import Takes
from xinfer_runtime.errors import InvalidRequest, ModelNotFound, XinferError
from xinfer_runtime.models import LaunchRequest, ReplicaState

_FINAL = (ReplicaState.READY, ReplicaState.FAILED)


class ModelsHandler(XinferHandler):
    @endpoint(MODELS_LIST, gives=ModelList)
    async def get(self) -> None:
        self.reply({"object": "list", "data": self.service.models.describe_all()})

    @endpoint(MODELS_START, takes=Takes(LaunchRequest, query=("wait_ready", "replace")), gives=Launched)
    async def post(self) -> None:
        request = launch_request(self.request.body)
        # Xinference's sync client sends "False", its async client "false".
        wait_ready = self._flag("wait_ready", default=True)
        in_place = self._flag("replace", default=False)
        if in_place:
            # It ends what runs under that name.
            current_principal().require(MODELS_STOP)
        try:
            uid = await self.service.launch(request, wait_ready=wait_ready, in_place=in_place)
        except XinferError as error:
            error.message = as_sent(error.message, (path for _, path in files_of_launch(request)))
            raise
        self.reply({"model_uid": uid})

    def _flag(self, name: str, *, default: bool) -> bool:
        text = self.get_query_argument(name, str(default)).lower()
        if text not in ("true", "false", "1", "0"):
            raise InvalidRequest(f"`{name}` must be true or false, not {text!r}.", param=name)
        return text in ("true", "1")


class ModelHandler(XinferHandler):
    @endpoint(MODELS_LIST, gives=Model)
    async def get(self, uid: str) -> None:
        self.reply(self.service.models.describe(uid))

    @endpoint(MODELS_STOP, gives=None)
    async def delete(self, uid: str) -> None:
        await self.service.terminate(uid)
        self.reply(None)


class ModelProgressHandler(XinferHandler):
    @endpoint(MODELS_READ, gives=Progress)
    async def get(self, uid: str) -> None:
        self.reply(progress_object(self.service.models.status(uid)))


class ModelEventsHandler(XinferHandler):
    """What happened to a model; as a stream, the model itself at every change until it is ready, failed or gone."""

    @endpoint(MODELS_READ, takes=Takes(streams=True), gives=list[Happened])
    async def get(self, uid: str) -> None:
        if "text/event-stream" not in self.request.headers.get("Accept", ""):
            self.reply(event_objects(self.service.models.status(uid)))
            return
        await self._stream(uid)

    async def _stream(self, uid: str) -> None:
        changed = asyncio.Event()
        unsubscribe = self.service.subscribe(lambda name: changed.set() if name == uid else None)
        try:
            self.service.models.status(uid)
            async with EventStream(self) as events:
                while True:
                    changed.clear()
                    try:
                        status = self.service.models.status(uid)
                    except ModelNotFound:
                        break
                    await events.send(msgspec.json.encode(self.service.models.describe(uid)))
                    if status.state in _FINAL:
                        break
                    await changed.wait()
                await events.done()
        finally:
            unsubscribe()


class InfoHandler(XinferHandler):
    """What the side panel asks first: version, cluster, dashboard."""

    @endpoint(MODELS_LIST, gives=ServerInfo)
    async def get(self) -> None:
        self.reply(self.service.info())
