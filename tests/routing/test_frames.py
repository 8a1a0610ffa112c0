import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.messages import Delta, EmbedRequest, FinishReason, GenerateRequest, Usage
from xinfer_runtime.models import EngineStats
from xinfer_runtime.routing.frames import (
    FRAME_LIMIT,
    Abort,
    Credit,
    FrameError,
    Hello,
    Load,
    Message,
    Ping,
    Pong,
    Step,
    Submit,
    Welcome,
    decode_from_gateway,
    decode_from_replica,
    encode_frames,
    encode_message,
    read_frame,
)

names = st.text(max_size=20)
to_replica = st.one_of(
    st.builds(Hello, st.integers(0, 9), names),
    st.builds(Submit, st.builds(GenerateRequest, id=names, prompt=names, resume=st.tuples(st.integers(0, 2**31)))),
    st.builds(
        Submit, st.builds(EmbedRequest, id=names, inputs=st.lists(names | st.tuples(st.integers(0, 9))).map(tuple))
    ),
    st.builds(Abort, names),
    st.builds(Credit, names, st.integers(0, 2**40)),
    st.just(Ping()),
)
deltas = st.builds(
    Delta,
    names,
    names,
    st.lists(st.integers(0, 2**31), max_size=4).map(tuple),
    st.sampled_from([None, *FinishReason]),
    st.sampled_from([None, Usage(1, 2, 3)]),
)
to_gateway = st.one_of(
    st.builds(Welcome, names),
    st.builds(Step, st.lists(deltas, max_size=4).map(tuple)),
    st.just(Pong()),
    st.just(Load(EngineStats(running=2, tokens_per_second=1.5))),
)


async def frames_of(data: bytes, limit: int = FRAME_LIMIT) -> list[bytes]:
    """The frames in `data`, which the peer sent before it closed the connection."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    while not reader.at_eof():
        frames.append(await read_frame(reader, limit))
    return frames


def bodies(messages: list[Message]) -> list[bytes]:
    return asyncio.run(frames_of(encode_frames([encode_message(message) for message in messages])))


@given(st.lists(to_replica, min_size=1, max_size=40))
def test_a_gateways_messages_arrive_as_they_were_in_one_frame(messages: list[Message]) -> None:
    (body,) = bodies(messages)
    assert decode_from_gateway(body) == messages


@given(st.lists(to_gateway, min_size=1, max_size=40))
def test_a_replicas_messages_arrive_as_they_were_in_one_frame(messages: list[Message]) -> None:
    (body,) = bodies(messages)
    assert decode_from_replica(body) == messages


def test_big_messages_get_frames_of_their_own() -> None:
    messages = [Submit(GenerateRequest(id=f"{n}", prompt="x" * 700_000)) for n in range(3)]
    frames = bodies(list(messages))
    assert len(frames) == 3
    assert [message for frame in frames for message in decode_from_gateway(frame)] == messages


def test_a_message_that_no_frame_can_hold_is_refused() -> None:
    with pytest.raises(FrameError, match="33554432"):
        encode_message(Submit(GenerateRequest(id="1", prompt="x" * FRAME_LIMIT)))


@given(st.binary(max_size=200))
def test_garbage_is_a_frame_error_and_nothing_else(garbage: bytes) -> None:
    for decode in (decode_from_gateway, decode_from_replica):
        try:
            decode(garbage)
        except FrameError:
            continue


@given(st.binary(max_size=60))
async def test_garbage_on_the_wire_is_a_frame_error_or_the_end_of_the_link(garbage: bytes) -> None:
    try:
        await frames_of(garbage, limit=40)
    except (FrameError, ConnectionResetError):
        return


@pytest.mark.parametrize("length", [0, 41, 2**31, 2**32 - 1])
async def test_a_hostile_length_is_refused_before_its_bytes_come(length: int) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(length.to_bytes(4, "big"))
    with pytest.raises(FrameError, match="40 allowed"):
        await read_frame(reader, 40)


@pytest.mark.parametrize("cut", [1, 3, 4, 10])
async def test_a_truncated_frame_is_the_end_of_the_link(cut: int) -> None:
    data = encode_frames([encode_message(Hello(1, "a token of some length"))])
    with pytest.raises(ConnectionResetError):
        await frames_of(data[:cut])


def test_deep_nesting_is_a_frame_error() -> None:
    with pytest.raises(FrameError):
        decode_from_gateway(b"\x91" * 100_000)


def test_a_replicas_message_is_not_taken_from_a_gateway() -> None:
    body = msgspec.msgpack.encode([Welcome("m-0")])
    with pytest.raises(FrameError):
        decode_from_gateway(body)
