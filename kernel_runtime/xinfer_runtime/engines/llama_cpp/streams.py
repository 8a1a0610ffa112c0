"""Which part of a split KV cache holds which sequence. A state machine without I/O.

A split cache gives every sequence a *stream* of its own, so that attention goes over the sequence's own cells only. In
exchange, llama.cpp shares nothing between streams but copies whole ones, and computes together only sequences whose
streams are neighbours. So the running sequences are kept side by side in the first streams: when one ends, the last of
them moves into the gap. One more stream than there are sequences makes it possible to swap two.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xinfer_runtime.engines.llama_cpp.cell_operations import Operation, Remove, Share


@dataclass(frozen=True)
class Copy:
    """Make stream `target` what stream `source` is, the first `length` positions of it."""

    source: int
    target: int
    length: int | None = None


StreamOperation = Copy | Remove
"""A change of the streams; the sequence of a Remove is a stream."""


class Streams:
    """The streams of `sequences` sequences, `sequences` + 1 of them."""

    def __init__(self, sequences: int) -> None:
        self._stream_of = list(range(sequences))
        self._sequence_in: list[int | None] = [*range(sequences), None]
        self._spare = sequences
        self._filled: set[int] = set()

    @property
    def count(self) -> int:
        return len(self._sequence_in)

    def of(self, sequence: int) -> int:
        """The stream that holds the sequence."""
        return self._stream_of[sequence]

    def change(self, operations: Sequence[Operation]) -> list[StreamOperation]:
        """What the operations on sequences mean for the streams."""
        changes: list[StreamOperation] = []
        for operation in operations:
            if isinstance(operation, Remove):
                changes.append(Remove(self.of(operation.sequence), operation.start, operation.end))
                if operation.start == 0 and operation.end < 0:
                    self._filled.discard(operation.sequence)
            elif isinstance(operation, Share):
                changes.append(Copy(self.of(operation.source), self.of(operation.target), operation.end))
                self._filled.add(operation.target)
            # A `Merge` would save cells: here the sequence keeps those that it computed itself.
        return changes

    def compact(self, running: Iterable[int]) -> list[StreamOperation]:
        """Bring the running sequences into the first streams. They are taken to hold something from now on."""
        running = set(running)
        if all(self._stream_of[sequence] < len(running) for sequence in running):
            self._filled |= running
            return []
        ahead = {self.of(sequence) for sequence in running}
        gaps = [stream for stream in range(len(running)) if stream not in ahead]
        behind = [stream for stream in ahead if stream >= len(running)]
        changes: list[StreamOperation] = []
        for gap, stream in zip(gaps, sorted(behind), strict=True):
            changes += self._swap(stream, gap)
        self._filled |= running
        return changes

    def fill(self, sequence: int) -> None:
        """The sequence was given something to hold."""
        self._filled.add(sequence)

    def forget_all(self) -> None:
        """Every stream was emptied."""
        self._filled.clear()

    def _swap(self, one: int, other: int) -> list[StreamOperation]:
        """Let the sequences of two streams change places; at most one of the streams may be the spare one."""
        of_one, of_other = self._sequence_in[one], self._sequence_in[other]
        if of_one in self._filled and of_other in self._filled:
            spare = self._spare
            self._place(of_other, spare)
            self._place(of_one, other)
            self._place(None, one)
            return [Copy(other, spare), Copy(one, other), Remove(one, 0)]
        self._place(of_one, other)
        self._place(of_other, one)
        if of_one in self._filled:
            return [Copy(one, other), Remove(one, 0)]
        if of_other in self._filled:
            return [Copy(other, one), Remove(other, 0)]
        return []

    def _place(self, sequence: int | None, stream: int) -> None:
        self._sequence_in[stream] = sequence
        if sequence is None:
            self._spare = stream
        else:
            self._stream_of[sequence] = stream
