"""What a gateway and the process of its local cluster say to each other: one JSON line each way.

The end of the process's stdin ends the cluster.
"""

import msgspec
from msgspec import Struct

from xinfer_runtime.cluster.credentials import TlsCredentials

LOG_NAME = "cluster.log"


class LocalClusterConfig(Struct, frozen=True, kw_only=True):
    """`parent` is the gateway's process id, `home` the folder of state and logs."""

    parent: int
    home: str
    credentials: TlsCredentials


class ClusterAddress(Struct, frozen=True):
    """`scheduler` is for Dask (`tls://...`)."""

    scheduler: str


def encode_line(message: Struct) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def decode_config(line: bytes) -> LocalClusterConfig:
    return msgspec.json.decode(line, type=LocalClusterConfig)


def decode_address(line: bytes) -> ClusterAddress:
    return msgspec.json.decode(line, type=ClusterAddress)
