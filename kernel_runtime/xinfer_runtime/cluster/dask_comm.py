# mypy: allow-untyped-calls
"""Dask's connections, with types."""

from typing import Any, Protocol

from xinfer_runtime.cluster.credentials import TlsCredentials


class Comm(Protocol):
    """A message connection of Dask's. A message is what msgpack can say; `abort` may be called on a closed one."""

    @property
    def peer_address(self) -> str: ...

    async def read(self) -> Any: ...

    async def write(self, msg: Any) -> Any: ...

    def abort(self) -> None: ...


async def written(comm: Comm) -> None:
    """Return when the kernel has taken what was written: `write` alone puts it into a buffer without a bound."""
    stream: Any = getattr(comm, "stream", None)
    if stream is not None:
        await stream.write(b"")


async def open_comm(address: str, credentials: TlsCredentials, seconds: float) -> Comm:
    """Connect to a Dask process. Raises OSError when that takes longer than `seconds`."""
    from distributed.comm import core

    arguments = credentials.security().get_connection_args("client")
    comm: Comm = await core.connect(address, timeout=seconds, **arguments)
    return comm
