"""The nodes of the cluster, as Dask's scheduler describes them."""

import asyncio
from typing import Any, Final

from xinfer_runtime.cluster.dask_comm import open_comm
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import ClusterUnavailable

_SECONDS: Final = 5.0


async def workers_of(session: ClusterSession | None) -> dict[str, dict[str, Any]]:
    """Dask's description of each worker by address; nothing while no cluster was started. Raises ClusterUnavailable."""
    if session is None:
        return {}
    try:
        comm = await open_comm(session.scheduler, session.credentials, _SECONDS)
        try:
            await comm.write({"op": "identity", "reply": True, "close": True, "n_workers": -1})
            async with asyncio.timeout(_SECONDS):
                reply = await comm.read()
        finally:
            comm.abort()
    except OSError as error:
        raise ClusterUnavailable(f"The scheduler {session.scheduler} did not answer: {error}") from error
    workers = reply.get("workers") if isinstance(reply, dict) else None
    if not isinstance(workers, dict):
        raise ClusterUnavailable(f"The scheduler {session.scheduler} does not describe its workers.")
    return workers
