# mypy: allow-untyped-calls
"""A node's process: a Dask nanny with one worker, where the node agent lives, and the node's replicas.

It outlasts its supervisor, and the replicas outlast the Dask worker, which ends with every scheduler.
"""

import asyncio
import logging
import ssl
from pathlib import Path

import dask
from distributed import Nanny
from distributed.comm.addressing import get_local_address_for
from distributed.core import Status, rpc

from xinfer_runtime.cluster.agent import HOSTED, SHUTDOWN_DRAIN
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.dask_options import DASK_CONFIG
from xinfer_runtime.cluster.inventory import NodeSurvey
from xinfer_runtime.cluster.replica_host import ReplicaHost
from xinfer_runtime.errors import PermissionDenied

logger = logging.getLogger("xinfer.node")

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 2.0
_CONNECT_SECONDS = 3.0
_CLOSING_LIMIT = 10.0
_CLOSING_POLL = 1.0


async def serve_node(
    home: Path, scheduler: str, credentials: TlsCredentials, host: str | None, name: str | None, stop: asyncio.Event
) -> None:
    """Belong to the cluster until `stop`, or until it retires this node: join it again whenever it comes back.

    `host` is the address at which others reach this node, by default the one that faces the scheduler. Raises
    PermissionDenied when the node was expelled.
    """
    delay = _FIRST_DELAY
    if host is None:
        host = await asyncio.to_thread(_own_address, scheduler)
    survey = await asyncio.to_thread(NodeSurvey, name or "", host, home)
    replicas = ReplicaHost(survey, host, home / "logs", credentials, outlasts=True)
    with dask.config.set(DASK_CONFIG | {"temporary-directory": str(home / "scratch")}):
        try:
            while not stop.is_set():
                try:
                    await _one_membership(home, scheduler, credentials, host, name, replicas, stop)
                    delay = _FIRST_DELAY
                except Exception as error:  # Dask raises whatever went wrong in the worker's process
                    if await _is_expelled(scheduler, credentials):
                        raise PermissionDenied(
                            f"this node is expelled from the cluster at {scheduler}: its join token was revoked; "
                            "join with a new one"
                        ) from error
                    logger.warning("not in the cluster at %s, will try again in %.1f s: %r", scheduler, delay, error)
                await _wait(stop, delay)
                delay = min(2 * delay, _LONGEST_DELAY)
        finally:
            await replicas.close(SHUTDOWN_DRAIN)


async def _one_membership(
    home: Path,
    scheduler: str,
    credentials: TlsCredentials,
    host: str,
    name: str | None,
    replicas: ReplicaHost,
    stop: asyncio.Event,
) -> None:
    # A supervisor that is not there yet is no reason to start and end processes.
    identity = await _identity(scheduler, credentials)
    nanny = Nanny(
        scheduler,
        security=credentials.security(),
        host=host,
        name=name,
        nthreads=1,
        # What runs here is replicas, in processes of their own, which Dask's limits do not see.
        memory_limit=0,
        env={"XINFER_HOME": str(home), HOSTED: "1"},
        local_directory=str(home / "scratch"),
        # The worker's status pages ask nobody who they are.
        dashboard_address="127.0.0.1:0",
        death_timeout=30,
    )
    nanny.handlers.update(
        xinfer_sync=replicas.sync, xinfer_inspect=replicas.inspect, xinfer_next_report=replicas.next_report
    )
    try:
        await nanny
        logger.info("joined the cluster at %s as %s", scheduler, nanny.worker_address)
        finished = asyncio.ensure_future(_left(nanny))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((finished, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (finished, stopped):
            task.cancel()
        if stop.is_set():
            return
    finally:
        await nanny.close(timeout=10)
    if await _identity(scheduler, credentials) == identity:
        logger.info("the cluster has retired this node")
        stop.set()


async def _left(nanny: Nanny) -> None:
    """Return when the nanny has ended, or was about to for too long: what hangs in its worker is not waited for."""
    finished = asyncio.ensure_future(nanny.finished())
    closing = 0.0
    while not finished.done() and closing < _CLOSING_LIMIT:
        await asyncio.wait([finished], timeout=_CLOSING_POLL)
        closing = closing + _CLOSING_POLL if nanny.status == Status.closing_gracefully else 0.0
    finished.cancel()


def _own_address(scheduler: str) -> str:
    """Where this machine is reached from the scheduler's."""
    return str(get_local_address_for(scheduler)).partition("://")[2].strip("[]")


async def _is_expelled(scheduler: str, credentials: TlsCredentials) -> bool:
    """Whether this node's certificate is what keeps it out; Dask does not tell."""
    host, _, port = scheduler.removeprefix("tls://").rpartition(":")
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            context = await asyncio.to_thread(credentials.client_context)
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context, server_hostname="")
            try:
                # The alert comes after the handshake.
                await reader.read(1)
            finally:
                writer.transport.abort()
    except ssl.SSLError as error:
        return "CERTIFICATE_REVOKED" in (error.reason or "")
    except (OSError, TimeoutError):
        return False
    return False


async def _identity(scheduler: str, credentials: TlsCredentials) -> str:
    """Which life of the scheduler it is. Raises OSError where none answers."""
    remote = rpc(
        scheduler, connection_args=credentials.security().get_connection_args("client"), timeout=_CONNECT_SECONDS
    )
    try:
        answer = await asyncio.wait_for(remote.identity(), _CONNECT_SECONDS)
        return str(answer["id"])
    finally:
        await remote.close_rpc()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
