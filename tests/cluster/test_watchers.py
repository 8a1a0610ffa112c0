import asyncio
from typing import Any

import pytest
from tests.cluster.conftest import spec

from xinfer_runtime.cluster import watchers as module
from xinfer_runtime.cluster.protocol import Beat, Change, Snapshot, WatchMessage, decode_watch, encode
from xinfer_runtime.cluster.watchers import Watchers
from xinfer_runtime.models import ModelStatus


class Gateway:
    """A comm whose other end reads, or does not."""

    peer_address = "tls://gateway"

    def __init__(self, *, reads: bool = True) -> None:
        self.messages: list[WatchMessage] = []
        self.aborted = False
        self._reads = asyncio.Event()
        if reads:
            self._reads.set()

    async def read(self) -> Any:
        raise NotImplementedError

    async def write(self, msg: bytes) -> None:
        await self._reads.wait()
        self.messages.append(decode_watch(msg))

    def abort(self) -> None:
        self.aborted = True


SNAPSHOT = Snapshot(epoch="e", revision=0, models=())


async def test_each_watcher_gets_the_snapshot_and_then_every_change_in_order() -> None:
    watchers, gateways = Watchers(), [Gateway(), Gateway()]
    for gateway in gateways:
        watchers.add(gateway, encode(SNAPSHOT))
    status = ModelStatus(spec=spec())
    watchers.publish(1, "m", status)
    watchers.publish(2, "m", None)
    for _ in range(3):
        watchers.beat(2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    changes = [Change(revision=1, uid="m", status=status), Change(revision=2, uid="m", status=None)]
    for gateway in gateways:
        assert gateway.messages == [SNAPSHOT, *changes, Beat(revision=2)]
    watchers.close()


async def test_a_gateway_that_does_not_read_is_dropped_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUE_LIMIT", 10_000)
    watchers, stuck, reading = Watchers(), Gateway(reads=False), Gateway()
    for gateway in (stuck, reading):
        watchers.add(gateway, encode(SNAPSHOT))
    for revision in range(1, 200):
        watchers.publish(revision, "m", ModelStatus(spec=spec()))
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert stuck.aborted
    assert not reading.aborted
    assert len(reading.messages) == 200
    watchers.close()
