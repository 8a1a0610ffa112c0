"""Nodes of the cluster, for whoever looks after them."""

import msgspec
from msgspec import Struct

from jupyter_xinfer.handlers.base import XinferHandler, endpoint
from jupyter_xinfer.protocol.answers import Drained, Nodes
from jupyter_xinfer.protocol.decoding import decode
from jupyter_xinfer.protocol.openapi import Takes


class DrainRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /xinfer/drain`. `node` is a label or a worker's address; `undo` has it used again."""

    node: str
    undo: bool = False


class NodesHandler(XinferHandler):
    """What the nodes have, and which replicas they run."""

    @endpoint("admin", gives=Nodes)
    async def get(self) -> None:
        self.reply(msgspec.to_builtins(await self.service.nodes()))


class DrainHandler(XinferHandler):
    @endpoint("admin", takes=Takes(DrainRequest), gives=Drained)
    async def post(self) -> None:
        request = decode(self.request.body, DrainRequest)
        self.reply({"node": request.node, "message": await self.service.drain(request.node, undo=request.undo)})
