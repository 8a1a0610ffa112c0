"""The node agent: a plugin of each Dask worker, through which the controller reaches the replicas of its node.

The replicas belong to a `ReplicaHost`: to that of the worker's nanny where it has one, as below
`jupyter xinfer worker`, and else to one in the worker.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from distributed.comm.addressing import get_address_host
from distributed.diagnostics.plugin import WorkerPlugin

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.inventory import NodeSurvey
from xinfer_runtime.cluster.lease import Lease
from xinfer_runtime.cluster.protocol import METRIC, NodeReport, decode
from xinfer_runtime.cluster.replica_host import ReplicaHost
from xinfer_runtime.errors import EngineError

if TYPE_CHECKING:
    from distributed.worker import Worker

logger = logging.getLogger("xinfer.agent")

PLUGIN_NAME: Final = "xinfer-agent"
HOSTED: Final = "XINFER_REPLICAS_OUTLAST_WORKER"
"""Set in the environment of a worker whose nanny has the replicas, and answers for them (`node.py`)."""
_REPORT_EVERY = 10.0
_REPORT_GAP = 0.1
_RETRY = 0.5
_RPC_TIMEOUT = 5.0
SHUTDOWN_DRAIN: Final = 6.0
"""Seconds that streams get when a node ends: below the 8 s that a Dask nanny leaves a worker which got SIGTERM."""


class _Host(Protocol):
    """What the agent needs of a `ReplicaHost`, here or in the nanny's process."""

    async def sync(self, sync: bytes) -> bytes: ...

    async def inspect(self, spec: bytes) -> bytes: ...

    async def next_report(self, version: int, seconds: float) -> tuple[int, bytes]: ...


class _NannysHost:
    """The host in the process of the worker's nanny, by RPC."""

    def __init__(self, nanny: Any) -> None:
        self._nanny = nanny

    async def sync(self, sync: bytes) -> bytes:
        return bytes(await self._nanny.xinfer_sync(sync=sync))

    async def inspect(self, spec: bytes) -> bytes:
        return bytes(await self._nanny.xinfer_inspect(spec=spec))

    async def next_report(self, version: int, seconds: float) -> tuple[int, bytes]:
        found, report = await self._nanny.xinfer_next_report(version=version, seconds=seconds)
        return int(found), bytes(report)


class NodeAgent(WorkerPlugin):
    """Register it with `idempotent=True`: a second registration of another kind would end all replicas of the cluster.

    `home` is the folder for logs on the node, by default `XINFER_HOME` or `~/.xinfer`. `replica_command` starts a
    replica process, by default with this worker's Python.
    """

    name = PLUGIN_NAME
    idempotent = True

    def __init__(self, home: str | None = None, replica_command: tuple[str, ...] = ()) -> None:
        self._home = home
        self._command = replica_command

    async def setup(self, worker: "Worker") -> None:
        self._worker = worker
        self._own: ReplicaHost | None = None
        self._lease: Lease | None = None
        self._host: _Host
        if os.environ.get(HOSTED):
            self._host = _NannysHost(worker.rpc(str(worker.nanny)))
        else:
            home = _home_folder(self._home)
            credentials = _credentials_of(worker)
            address = get_address_host(worker.address)
            survey = await asyncio.to_thread(NodeSurvey, _label_of(worker), address, home)
            self._lease = Lease(worker)
            self._host = self._own = ReplicaHost(survey, address, home / "logs", credentials, command=self._command)
        worker.handlers["xinfer_sync"] = self._sync
        worker.handlers["xinfer_inspect"] = self._inspect
        # Heartbeats carry no more than a number: Dask's dashboard shows metrics to whoever asks.
        self._last = {"boot": "", "seq": 0}
        worker.metrics[METRIC] = lambda _worker: dict(self._last)
        self._ended = False
        self._reporter = asyncio.create_task(self._report_forever())

    async def teardown(self, worker: "Worker") -> None:
        """Streams in flight get a moment to finish; then nothing is left, but for what outlasts the worker."""
        if self._own is not None:
            await self._own.close(SHUTDOWN_DRAIN)
        # Dask turns the cancellation of a call on a lost connection into an error: that alone would not end the loop.
        self._ended = True
        self._reporter.cancel()
        await asyncio.wait([self._reporter], timeout=_RPC_TIMEOUT)
        if self._lease is not None:
            await self._lease.release()
        for name in ("xinfer_sync", "xinfer_inspect"):
            worker.handlers.pop(name, None)
        worker.metrics.pop(METRIC, None)

    # ---- RPC handlers

    async def _sync(self, sync: bytes) -> bytes:
        return await self._host.sync(sync)

    async def _inspect(self, spec: bytes) -> bytes:
        return await self._host.inspect(spec)

    # ---- reports

    async def _report_forever(self) -> None:
        """Report each change, and now and then without one; until it is taken, for the controller may come later."""
        version = -1
        while not self._ended:
            try:
                found, report = await self._host.next_report(version, _REPORT_EVERY)
            except Exception as error:  # Dask raises whatever the nanny raised
                logger.warning("the replicas of this node cannot be asked for: %r", error)
                await asyncio.sleep(_RETRY)
                continue
            if await self._report(report):
                version = found
                await asyncio.sleep(_REPORT_GAP)
            else:
                version = -1
                await asyncio.sleep(_RETRY)

    async def _report(self, report: bytes) -> bool:
        described = decode(report, NodeReport)
        self._last = {"boot": described.boot, "seq": described.seq}
        try:
            call = self._worker.scheduler.xinfer_report(address=self._worker.address, report=report)
            taken = isinstance(await asyncio.wait_for(call, _RPC_TIMEOUT), str)
            if self._lease is not None:
                await self._lease.set(bool(described.replicas))
            return taken
        except Exception as error:  # Dask raises whatever the scheduler raised
            logger.info("the controller did not take a report, will try again: %r", error)
            return False


def _home_folder(home: str | None) -> Path:
    return Path(home or os.environ.get("XINFER_HOME") or "~/.xinfer").expanduser()


def _label_of(worker: "Worker") -> str:
    """The name that somebody gave the worker. Dask's own names are numbers and addresses."""
    return worker.name if isinstance(worker.name, str) and "://" not in worker.name else ""


def _credentials_of(worker: "Worker") -> TlsCredentials:
    """The worker's own; Dask holds PEM text or paths. Raises EngineError on a cluster without TLS."""
    security: Any = worker.security
    parts = (security.tls_ca_file, security.tls_worker_cert, security.tls_worker_key)
    if not worker.address.startswith("tls://") or not all(parts):
        raise EngineError(f"Dask worker {worker.address} has no TLS; start the cluster with tls:// and certificates")
    ca, cert, key = (part if "\n" in part else Path(part).read_text() for part in parts)
    return TlsCredentials(ca=ca, cert=cert, key=key)
