"""A running sequence on its way to another replica: its tokens and what was computed of them, as bytes.

Only replicas of one cluster send these to each other, over links that both ends know each other by. The receiver checks
all the same that lengths are what they are said to be before it takes any memory.
"""

from collections.abc import Iterator

import msgspec

MOVED_BYTES = 256 << 20
"""The largest state that is moved. Of a larger one, computing the tokens again does not take much longer, and both
replicas need memory for it that no forecast counts."""

PIECE_BYTES = 1 << 20


class SequenceState(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`cells` is what the engine wrote for `tokens`, int32, the first of the sequence's, computed with `adapter` by a
    model of this `identity`.
    """

    identity: str
    adapter: str
    tokens: memoryview
    cells: memoryview

    def pieces(self) -> Iterator[bytes]:
        """The state as `StateReader` takes it: a head, and then pieces of up to `PIECE_BYTES`."""
        head = _Head(self.identity, self.adapter, self.tokens.nbytes, self.cells.nbytes)
        yield msgspec.msgpack.encode(head)
        for part in (self.tokens, self.cells):
            for start in range(0, part.nbytes, PIECE_BYTES):
                yield part[start : start + PIECE_BYTES].tobytes()


class _Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    identity: str
    adapter: str
    token_bytes: int
    cell_bytes: int


class StateReader:
    """Puts the pieces of a state together."""

    def __init__(self) -> None:
        self._head: _Head | None = None
        self._data = bytearray()

    @property
    def complete(self) -> bool:
        return self._head is not None and len(self._data) == _size(self._head)

    def take(self, piece: bytes) -> None:
        """The next piece. Raises ValueError for a head that is none, or more bytes than it said."""
        if self._head is None:
            try:
                head = msgspec.msgpack.decode(piece, type=_Head)
            except msgspec.MsgspecError as error:
                raise ValueError(f"no head of a state: {error}") from error
            if min(head.token_bytes, head.cell_bytes) < 1 or head.token_bytes % 4 or _size(head) > MOVED_BYTES:
                raise ValueError(f"a state of {head.token_bytes} and {head.cell_bytes} bytes")
            self._head = head
            return
        self._data += piece
        if len(self._data) > _size(self._head):
            raise ValueError("a state is longer than its head says")

    def state(self) -> SequenceState:
        """What the pieces were. Raises ValueError where some are missing."""
        head = self._head
        if head is None or not self.complete:
            raise ValueError("a state is cut off")
        data = memoryview(self._data)
        return SequenceState(
            identity=head.identity,
            adapter=head.adapter,
            tokens=data[: head.token_bytes],
            cells=data[head.token_bytes :],
        )


def _size(head: _Head) -> int:
    return head.token_bytes + head.cell_bytes
