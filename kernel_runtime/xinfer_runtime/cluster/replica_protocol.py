"""What a node agent and its replica process say to each other: one JSON line each, over the process's stdin and stdout.

The first line to the replica is its `ReplicaConfig`, with the secrets that belong in no argument and no environment.
The end of stdin means that the agent is gone: the replica ends at once.
"""

import msgspec
from msgspec import Struct

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.errors import ErrorInfo
from xinfer_runtime.models import ModelInfo, ModelSpec

BEAT_SECONDS = 3.0
"""How often a replica says that it lives."""

LINE_LIMIT = 1 << 20


class ReplicaConfig(Struct, frozen=True, kw_only=True):
    """`parent` is the agent's process id, `host` the address to listen on, `token` what a gateway must show.

    `cores` of the node may be used, None for all.
    """

    replica_id: str
    parent: int
    host: str
    token: str
    credentials: TlsCredentials
    spec: ModelSpec
    cores: int | None = None


class DrainCommand(Struct, frozen=True, tag="drain"):
    """Take no new request, give the running ones `seconds`, then end."""

    seconds: float


class CoresCommand(Struct, frozen=True, tag="cores"):
    """Use so many cores from now on: replicas have come or gone."""

    cores: int


Command = DrainCommand | CoresCommand


class ListeningLine(Struct, frozen=True, tag="listening"):
    pid: int
    address: str


class ProgressLine(Struct, frozen=True, tag="progress"):
    progress: float
    stage: str


class ReadyLine(Struct, frozen=True, tag="ready"):
    info: ModelInfo


class FailedLine(Struct, frozen=True, tag="failed"):
    error: ErrorInfo


class BeatLine(Struct, frozen=True, tag="beat"):
    pass


ReplicaLine = ListeningLine | ProgressLine | ReadyLine | FailedLine | BeatLine

_encoder = msgspec.json.Encoder()
_line_decoder: msgspec.json.Decoder[ReplicaLine] = msgspec.json.Decoder(ReplicaLine)
_config_decoder = msgspec.json.Decoder(ReplicaConfig)
_command_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


def encode_line(message: Struct) -> bytes:
    return _encoder.encode(message) + b"\n"


def decode_line(line: bytes) -> ReplicaLine:
    return _line_decoder.decode(line)


def decode_config(line: bytes) -> ReplicaConfig:
    return _config_decoder.decode(line)


def decode_command(line: bytes) -> Command:
    return _command_decoder.decode(line)
