"""One request for vectors in pieces: how it is cut, how many are under way, and what becomes of the rest."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from jupyter_xinfer.vector_pieces import PIECE_INPUTS, PIECE_SIZE, PIECES_AT_ONCE, in_pieces, pieces
from xinfer_runtime.errors import EngineError
from xinfer_runtime.messages import Delta, EmbedRequest, FinishReason, Usage


def request(*inputs: str) -> EmbedRequest:
    return EmbedRequest(id="r", inputs=inputs, dimensions=3)


def test_pieces_have_all_inputs_in_order() -> None:
    texts = tuple(f"{n}" for n in range(70))
    found = pieces(request(*texts))

    assert [len(each.inputs) for each in found] == [PIECE_INPUTS, PIECE_INPUTS, 6]
    assert [each.first for each in found] == [0, 32, 64]
    assert tuple(text for each in found for text in each.inputs) == texts
    assert len({each.id for each in found}) == 3
    assert {each.dimensions for each in found} == {3}


def test_long_inputs_make_small_pieces() -> None:
    long = "x" * (PIECE_SIZE + 1)

    assert [len(each.inputs) for each in pieces(request("a", long, "b", "c"))] == [1, 1, 2]
    assert pieces(request(long)) == [request(long)]


class Replicas:
    """Answers each piece with a number per input after a turn of the loop; fails at the text "bad"."""

    def __init__(self) -> None:
        self.running = self.most = self.closed = 0

    async def send(self, piece: EmbedRequest) -> AsyncGenerator[Delta]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.02 if piece.first == 0 else 0.001)
            if "bad" in piece.inputs:
                raise EngineError("no")
            vectors = tuple(str(text).encode() for text in piece.inputs)
            yield Delta(piece.id, finish_reason=FinishReason.STOP, usage=Usage(len(piece.inputs), 0), vectors=vectors)
        finally:
            self.running -= 1
            self.closed += 1


@pytest.mark.parametrize("replicas", [1, 3])
async def test_answers_come_in_order_with_the_tokens_so_far(replicas: int) -> None:
    there = Replicas()
    texts = tuple(f"{n}" for n in range(32 * 20))
    async with aclosing(in_pieces(there.send, request(*texts), replicas)) as answer:
        deltas = [delta async for delta in answer]

    assert tuple(vector.decode() for delta in deltas for vector in delta.vectors) == texts
    assert [delta.usage.prompt_tokens for delta in deltas if delta.usage] == [32 * n for n in range(1, 21)]
    assert [delta.finish_reason for delta in deltas] == [None] * 19 + [FinishReason.STOP]
    assert {delta.id for delta in deltas} == {"r"}
    assert there.most == PIECES_AT_ONCE * replicas


async def test_a_failure_ends_the_rest() -> None:
    there = Replicas()
    async with aclosing(in_pieces(there.send, request(*["x"] * 40, "bad", *["x"] * 400), 1)) as answer:
        await anext(answer)
        with pytest.raises(EngineError):
            await anext(answer)

    assert there.running == 0
    assert there.closed < 14


async def test_whoever_goes_away_takes_the_rest_along() -> None:
    there = Replicas()
    async with aclosing(in_pieces(there.send, request(*["x"] * 400), 1)) as answer:
        await anext(answer)

    assert there.running == 0
