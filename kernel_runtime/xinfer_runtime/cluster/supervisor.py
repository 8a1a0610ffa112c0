# mypy: allow-untyped-calls
"""The supervisor's process: Dask's scheduler with the controller, and the endpoint where nodes join."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import dask
from distributed import Scheduler
from distributed.comm.addressing import get_address_host
from distributed.protocol.pickle import dumps

from xinfer_runtime.cluster.agent import NodeAgent
from xinfer_runtime.cluster.authority import Addresses, Authority
from xinfer_runtime.cluster.controller import Controller
from xinfer_runtime.cluster.dask_options import DASK_CONFIG
from xinfer_runtime.cluster.joining import JoinServer
from xinfer_runtime.cluster.revocation import RevocableSecurity, Revocation
from xinfer_runtime.errors import ClusterUnavailable

logger = logging.getLogger("xinfer.supervisor")

# Nodes on other machines, behind switches that forget: what is silent for this long is gone.
_CONFIG = DASK_CONFIG | {"distributed.scheduler.worker-ttl": "30 s"}


async def supervise(
    home: Path, host: str, port: int, join_port: int, stop: asyncio.Event, ready: Callable[[Addresses], None]
) -> None:
    """Run the supervisor until `stop`; `ready` is told where it is. Raises ClusterUnavailable where it cannot listen.

    State and the CA are in `home`. Port 0 takes any free one.
    """
    authority = await asyncio.to_thread(Authority.open, home)
    credentials = await asyncio.to_thread(authority.own_credentials)
    revocation = Revocation(authority)
    await asyncio.to_thread(revocation.write)
    security = RevocableSecurity(revocation.crl, **credentials.security_options())
    with dask.config.set(_CONFIG):
        scheduler = Scheduler(
            host=host,
            port=port,
            protocol="tls://",
            security=security,
            # It asks nobody who they are: for gateways on this machine, which show it through their login.
            dashboard_address="127.0.0.1:0",
        )
        # Before it listens: a gateway that finds a scheduler without a controller brings one, which has no home.
        scheduler.add_plugin(Controller(str(home)), idempotent=True)
        try:
            await scheduler
        except (OSError, RuntimeError) as error:  # Dask wraps whatever kept it from starting
            why = error.__cause__ or error
            raise ClusterUnavailable(f"the supervisor cannot listen on {host}:{port}: {why}") from error
        joins = JoinServer(authority, credentials, scheduler.address)
        try:
            agent = NodeAgent()
            await scheduler.register_worker_plugin(None, dumps(agent), agent.name, idempotent=True)
            try:
                found = await joins.start(host, join_port)
            except OSError as error:
                raise ClusterUnavailable(f"nodes cannot join on {host}:{join_port}: {error}") from error
            addresses = Addresses(scheduler.address, f"{_bracketed(get_address_host(scheduler.address))}:{found}")
            await asyncio.to_thread(authority.save_addresses, addresses)
            ready(addresses)
            expelling = asyncio.create_task(revocation.enforce(scheduler, security))
            await stop.wait()
            expelling.cancel()
        finally:
            await joins.close()
            await scheduler.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
