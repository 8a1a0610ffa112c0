# mypy: allow-untyped-calls
"""Brings controller and node agents into a Dask cluster that has none yet."""

import logging

from distributed import Client
from distributed.core import rpc

from xinfer_runtime.cluster.agent import NodeAgent
from xinfer_runtime.cluster.controller import Controller
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.errors import ClusterUnavailable
from xinfer_runtime.models import ModelSpec

logger = logging.getLogger("xinfer.session")

_CONNECT_SECONDS = 5.0


async def ensure_installed(scheduler: str, credentials: TlsCredentials, known: tuple[ModelSpec, ...] = ()) -> None:
    """Register our plugins unless a controller answers; `known` are the models that it then is to run.

    Raises OSError, or ClusterUnavailable where it stays silent.
    """
    if await _answers(scheduler, credentials):
        return
    logger.info("bringing the controller and the node agents to %s", scheduler)
    try:
        async with Client(
            scheduler,
            security=credentials.security(),
            asynchronous=True,
            timeout=_CONNECT_SECONDS,
            set_as_default=False,
        ) as client:
            await client.register_plugin(Controller(known=known))
            await client.register_plugin(NodeAgent())
    except OSError:
        raise
    except Exception as error:  # Dask raises whatever the scheduler raised
        raise ClusterUnavailable(
            f"the scheduler {scheduler} did not take the controller ({error!r}); "
            "install jupyter-xinfer where the scheduler and the workers run"
        ) from error
    if not await _answers(scheduler, credentials):
        raise ClusterUnavailable(f"the scheduler {scheduler} took the controller, but it does not answer; see its log")


async def _answers(scheduler: str, credentials: TlsCredentials) -> bool:
    connection = credentials.security().get_connection_args("client")
    remote = rpc(scheduler, connection_args=connection, timeout=_CONNECT_SECONDS)
    try:
        return isinstance(await remote.xinfer_get(), bytes)
    finally:
        await remote.close_rpc()
