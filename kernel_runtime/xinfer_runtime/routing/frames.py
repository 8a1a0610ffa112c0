"""The wire format of the link between a gateway and a replica.

A frame is a length (4 bytes, big endian) and that many bytes of msgpack: an array of messages. Everything of one loop
turn leaves in one frame, so that the cost of sockets and TLS is paid per engine step and not per token. Nothing in a
frame can carry code, and nothing is allocated for a length that nobody may send.
"""

import asyncio
from typing import Final

import msgspec
from msgspec import Struct

from xinfer_runtime.messages import Delta, ReplicaRequest
from xinfer_runtime.models import EngineStats

PROTOCOL_VERSION: Final = 3
FRAME_LIMIT: Final = 32 << 20
HELLO_LIMIT: Final = 4096
"""The longest frame from somebody who has not shown the token yet."""
INITIAL_CREDIT: Final = 64
"""Deltas that a replica may send for a stream before the gateway asked for more."""

_HEADER = 4
_SPLIT = 1 << 20


class Hello(Struct, frozen=True, array_like=True, tag=0):
    """The gateway's first message."""

    version: int
    token: str


class StateAt(Struct, frozen=True, array_like=True):
    """Where what was computed of a stream is kept: at a replica, which gives it once, for the ticket."""

    address: str
    replica_id: str
    token: str
    ticket: str

    def __repr__(self) -> str:
        # Without the secrets: they are in the way of logs and tracebacks.
        return f"StateAt({self.address!r}, {self.replica_id!r})"


class Submit(Struct, frozen=True, array_like=True, tag=1):
    """Start a stream. `request.id` names it on this link. `state` is what another replica has computed of it."""

    request: ReplicaRequest
    state: StateAt | None = None


class Abort(Struct, frozen=True, array_like=True, tag=2):
    """Drop a stream at once. Deltas that are under way may still arrive."""

    id: str


class Credit(Struct, frozen=True, array_like=True, tag=3):
    """The replica may send `deltas` more for this stream."""

    id: str
    deltas: int


class Ping(Struct, frozen=True, array_like=True, tag=4):
    pass


class Welcome(Struct, frozen=True, array_like=True, tag=5):
    """The replica's answer to a Hello that it accepts; the link is closed for any other."""

    replica_id: str


class Step(Struct, frozen=True, array_like=True, tag=6):
    """What the streams of this link got."""

    deltas: tuple[Delta, ...]


class Pong(Struct, frozen=True, array_like=True, tag=7):
    pass


class Load(Struct, frozen=True, array_like=True, tag=8):
    """The replica's load, told at every change."""

    stats: EngineStats


class Leave(Struct, frozen=True, array_like=True, tag=9):
    """The stream is to go on at another replica. What is not sent of it yet comes, and then `Left`."""

    id: str


class Left(Struct, frozen=True, array_like=True, tag=10):
    """The stream is none any more here. What was computed of it is kept for the ticket; an empty one gets nothing."""

    id: str
    ticket: str


class Fetch(Struct, frozen=True, array_like=True, tag=11):
    """Another replica's second and last message: it wants the state that is kept for this ticket."""

    ticket: str


class Piece(Struct, frozen=True, array_like=True, tag=12):
    """The next part of a state; see `StateReader`."""

    data: bytes


FromGateway = Hello | Submit | Abort | Credit | Ping | Leave | Fetch
FromReplica = Welcome | Step | Pong | Load | Left | Piece
Message = FromGateway | FromReplica


class FrameError(Exception):
    """The peer broke the protocol; the link cannot go on."""


_encoder = msgspec.msgpack.Encoder()
_from_gateway: msgspec.msgpack.Decoder[list[FromGateway]] = msgspec.msgpack.Decoder(list[FromGateway])
_from_replica: msgspec.msgpack.Decoder[list[FromReplica]] = msgspec.msgpack.Decoder(list[FromReplica])


def encode_message(message: Message) -> bytes:
    """One message. Raises FrameError if no frame could hold it."""
    data = _encoder.encode(message)
    if len(data) > FRAME_LIMIT - _HEADER - 5:
        raise FrameError(f"a message of {len(data)} bytes; a frame holds {FRAME_LIMIT}")
    return data


def encode_frames(messages: list[bytes]) -> bytes:
    """Frames with all of the encoded `messages` in order, mostly one; big messages get frames of their own."""
    frames: list[bytes] = []
    batch: list[bytes] = []
    size = 0
    for message in messages:
        if batch and size + len(message) > _SPLIT:
            frames.append(_frame(batch))
            batch, size = [], 0
        batch.append(message)
        size += len(message)
    if batch:
        frames.append(_frame(batch))
    return b"".join(frames)


def _frame(messages: list[bytes]) -> bytes:
    # The header of a msgpack array, whose elements are encoded already.
    count = len(messages)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdd" + count.to_bytes(4, "big")
    length = len(head) + sum(map(len, messages))
    return b"".join((length.to_bytes(_HEADER, "big"), head, *messages))


async def read_frame(reader: asyncio.StreamReader, limit: int = FRAME_LIMIT) -> bytes:
    """The body of the next frame.

    Raises FrameError for a length over `limit`, and OSError where the connection ends, inside a frame or between two.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_HEADER), "big")
        if not 0 < length <= limit:
            raise FrameError(f"a frame of {length} bytes, {limit} allowed")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the peer closed the link") from error


def decode_from_gateway(body: bytes) -> list[FromGateway]:
    """Raises FrameError for anything that is not a list of a gateway's messages."""
    try:
        return _from_gateway.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"not a gateway's frame: {error}") from error


def decode_from_replica(body: bytes) -> list[FromReplica]:
    """Raises FrameError for anything that is not a list of a replica's messages."""
    try:
        return _from_replica.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"not a replica's frame: {error}") from error
