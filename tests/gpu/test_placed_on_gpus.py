"""Two GPUs of this machine under our own placement, seen through NVML: `pytest tests/gpu`.

It needs two NVIDIA GPUs with a few GiB free each, and a llama-cpp-python that was built for CUDA.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bench.engine.random_model import SHAPES, write

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.local import LocalClusterProcess
from xinfer_runtime.cluster.nvidia_gpus import load_nvml, nvidia_gpus
from xinfer_runtime.cluster.placement_room import GPU_CONTEXT_BYTES
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.engines.registry import installed_engines
from xinfer_runtime.errors import DoesNotFit
from xinfer_runtime.messages import GenerateRequest, SamplingParams
from xinfer_runtime.models import LaunchRequest, ModelStatus
from xinfer_runtime.routing.merge import whole
from xinfer_runtime.routing.router import Router

_NVML = load_nvml()
_GPUS = nvidia_gpus(_NVML) if _NVML is not None else []

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(len(_GPUS) < 2, reason="needs two NVIDIA GPUs"),
    pytest.mark.skipif(not installed_engines().get("llama.cpp", ("", False))[1], reason="llama.cpp is built for CPUs"),
    pytest.mark.timeout(600),
]

_MIB = 1 << 20
_NOISE = 64 * _MIB
"""What the memory of a GPU may differ by without any process of ours."""
_SECONDS = 180.0


def used() -> dict[str, int]:
    """Bytes in use on each GPU, by UUID."""
    assert _NVML is not None
    return {gpu.uuid: gpu.memory_total - gpu.memory_free for gpu in nvidia_gpus(_NVML)}


def settles(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _size(path: str) -> int:
    return Path(path).stat().st_size


class Site:
    def __init__(self, home: Path) -> None:
        self._credentials = TlsCredentials.create()
        self._cluster = LocalClusterProcess(home, self._credentials)

    async def open(self) -> None:
        address = await self._cluster.start()
        self.session = ClusterSession(address.scheduler, self._credentials)
        await self.session.connect()
        self.router = Router(self.session)

    async def close(self) -> None:
        await self.router.close()
        await self.session.close()
        await self._cluster.close()

    async def ready(self, **fields: Any) -> ModelStatus:
        spec = resolve(LaunchRequest(**fields))

        def settled(status: ModelStatus | None) -> bool:
            states = {replica.state for replica in status.replicas} if status is not None else set()
            return states == {"ready"} or "failed" in states

        await self.session.launch(spec)
        status = await self.session.wait_until(spec.uid, settled, _SECONDS)
        assert status is not None
        assert status.state == "ready", status.error
        return status

    async def ask(self, uid: str) -> int:
        """Tokens of a short answer."""
        request = GenerateRequest(
            id="probe",
            token_ids=tuple(range(10, 74)),
            sampling=SamplingParams(temperature=0, max_tokens=32, ignore_eos=True),
        )
        return len((await whole(self.router.generate(uid, request), request.id)).token_ids)

    async def gone(self, uid: str, before: dict[str, int]) -> None:
        await self.session.terminate(uid)
        assert await asyncio.to_thread(settles, lambda: all(used()[gpu] < before[gpu] + _NOISE for gpu in before))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """About a GiB of weights in 24 layers."""
    path = tmp_path_factory.mktemp("model") / "half-a-billion.gguf"
    write(path, SHAPES["0.5b"])
    yield str(path)
    path.unlink()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    site = Site(tmp_path_factory.mktemp("home"))
    await site.open()
    yield site
    await site.close()


async def test_two_replicas_run_on_two_gpus_and_leave_nothing_there(site: Site, model: str) -> None:
    before = used()
    weights = _size(model)
    status = await site.ready(model_path=model, model_uid="two", replica=2, n_gpu=1, context_length=4096)
    devices = [replica.devices for replica in status.replicas]
    assert all(len(each) == 1 for each in devices)
    assert len(set(devices)) == 2
    now = used()
    for (uuid,) in devices:
        assert now[uuid] - before[uuid] > 0.9 * weights, uuid
    for uuid in set(before) - {each[0] for each in devices}:
        assert now[uuid] - before[uuid] < _NOISE, uuid
    assert await site.ask("two") == 32
    await site.gone("two", before)


async def test_one_replica_is_divided_between_two_gpus(site: Site, model: str) -> None:
    before = used()
    weights = _size(model)
    status = await site.ready(model_path=model, model_uid="wide", n_gpu=2, context_length=4096)
    (replica,) = status.replicas
    assert len(replica.devices) == 2
    now = used()
    grown = {uuid: now[uuid] - before[uuid] for uuid in before}
    assert all(grown[uuid] > 0.25 * weights for uuid in replica.devices), grown
    assert sum(grown[uuid] for uuid in replica.devices) > 0.9 * weights
    assert all(grown[uuid] < _NOISE for uuid in set(before) - set(replica.devices)), grown
    assert await site.ask("wide") == 32
    await site.gone("wide", before)


async def test_a_replica_on_processors_takes_nothing_of_a_gpu(site: Site, model: str) -> None:
    before = used()
    status = await site.ready(model_path=model, model_uid="slow", n_gpu=None, context_length=512, max_sequences=2)
    assert status.replicas[0].devices == ()
    assert await site.ask("slow") == 32
    assert all(used()[uuid] < before[uuid] + _NOISE for uuid in before)
    await site.session.terminate("slow")


async def test_a_gpu_is_taken_by_its_position_and_forecast_holds(site: Site, model: str) -> None:
    before = used()
    status = await site.ready(model_path=model, model_uid="second", gpu_idx=_GPUS[1].index, context_length=4096)
    assert status.replicas[0].devices == (_GPUS[1].uuid,)
    grown = used()[_GPUS[1].uuid] - before[_GPUS[1].uuid]
    assert grown == pytest.approx(status.spec.memory_bytes + GPU_CONTEXT_BYTES, rel=0.05)
    await site.gone("second", before)


async def test_more_gpus_than_there_are_is_refused_with_the_number(site: Site, model: str) -> None:
    with pytest.raises(DoesNotFit, match=f"it has {len(_GPUS)} GPU"):
        await site.ready(model_path=model, model_uid="wider", n_gpu=len(_GPUS) + 1)
