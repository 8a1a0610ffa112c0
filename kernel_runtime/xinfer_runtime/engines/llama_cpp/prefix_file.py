"""Prefixes in a file, from when a model is unloaded until it is loaded again.

Whoever reads the file has llama.cpp read what is in it. So it is read only if nobody else could write it, if it was
written for the same `identity`, if its checksum is right and if every prefix holds the cells that it says it holds; the
rest llama.cpp checks against its own cache. A file that is anything else is as good as none.

Layout: magic, identity, entries, a length of 0, checksum. An entry is the length of its head, the head in MessagePack,
its tokens as int32, and its cells as llama.cpp writes them.
"""

import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.prefix_store import SavedPrefix

logger = logging.getLogger(__name__)

_MAGIC = b"xinfer prefixes 1\n"
_CHECKSUM_BYTES = 32
_LENGTH_BYTES = 4
_LONGEST_HEAD = 4096
_ABANDONED_SECONDS = 3600.0

_STATE_HEAD_BYTES = 12
"""llama.cpp's magic, the sequence, and the number of streams, each in four bytes. Then comes, for each stream, the
number of cells and what they hold."""


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    adapter: str
    tokens: int
    state_bytes: int


class _Unusable(Exception):
    """Why a file is not read."""


class PrefixFile:
    """The file at `path`, for what was computed under `identity`, 32 bytes."""

    def __init__(self, path: Path, identity: bytes) -> None:
        self.path = path
        self._identity = identity

    def write(self, prefixes: Iterable[SavedPrefix]) -> int:
        """Put these into the file, in place of what is there. Returns how many. Raises OSError."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        self._remove_abandoned()
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{self.path.name}-")  # With mode 0600.
        try:
            with os.fdopen(handle, "wb") as file:
                count = _write(file, self._identity, prefixes)
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise
        return count

    def read(self, most: int) -> list[SavedPrefix]:
        """What was written, in that order; nothing where there is no such file or it cannot be trusted, or where its
        prefixes have more than `most` bytes.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                _check_owner(os.fstat(handle))
                return _read(file, self._identity, most)
        except FileNotFoundError:
            return []
        except (OSError, _Unusable) as error:
            logger.warning("The prefixes in %s are not used: %s", self.path, error)
            return []

    def _remove_abandoned(self) -> None:
        """Remove what a process left that ended while it wrote."""
        for each in self.path.parent.glob(f".{self.path.name}-*"):
            if time.time() - each.stat().st_mtime > _ABANDONED_SECONDS:
                each.unlink(missing_ok=True)


def holds_cells_of(state: NDArray[np.uint8], tokens: int, *, split: bool = False) -> bool:
    """Whether a sequence as llama.cpp writes it has one cell for each of the positions of so many tokens. Only with
    `split` may it come from a split cache.
    """
    if len(state) < _STATE_HEAD_BYTES:
        return False
    streams = int(state[_STATE_HEAD_BYTES - 4 : _STATE_HEAD_BYTES].view(np.uint32)[0])
    if streams != 1 and not split:
        return False
    # The streams before the sequence's own have no cells of it.
    counts = state[_STATE_HEAD_BYTES : min(_STATE_HEAD_BYTES + 4 * streams, len(state) // 4 * 4)].view(np.uint32)
    own = int(np.argmax(counts != 0)) if len(counts) else 0
    begin = _STATE_HEAD_BYTES + 4 * (own + 1)
    if not len(counts) or counts[own] != tokens or len(state) < begin + 12 * tokens:
        return False
    # Position, number of sequences and sequence. Cells that have more do not pass, and are not kept.
    positions, sequences, _ = state[begin : begin + 12 * tokens].view(np.int32).reshape(-1, 3).T
    return bool(np.all(sequences == 1)) and np.array_equal(np.sort(positions), np.arange(tokens))


def _write(file: BinaryIO, identity: bytes, prefixes: Iterable[SavedPrefix]) -> int:
    checksum = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    count = 0

    def put(data: bytes | memoryview) -> None:
        checksum.update(data)
        file.write(data)

    put(_MAGIC + identity)
    for prefix in prefixes:
        head = msgspec.msgpack.encode(_Head(prefix.adapter, len(prefix.tokens), len(prefix.state)))
        put(len(head).to_bytes(_LENGTH_BYTES, "little") + head)
        put(prefix.tokens.data)
        put(prefix.state.data)
        count += 1
    put(bytes(_LENGTH_BYTES))
    file.write(checksum.digest())
    return count


def _check_owner(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("it is no file")
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise _Unusable("others can read or write it, or own it")


def _heads(some: Callable[[int], bytes]) -> Iterator[_Head]:
    """The heads of entries up to the last one; `some` gives so many bytes of the file."""
    while length := int.from_bytes(some(_LENGTH_BYTES), "little"):
        if length > _LONGEST_HEAD:
            raise _Unusable("the head of a prefix is too long")
        try:
            yield msgspec.msgpack.decode(some(length), type=_Head)
        except msgspec.MsgspecError as error:
            raise _Unusable(f"the head of a prefix is broken: {error}") from error


def _read(file: BufferedReader, identity: bytes, most: int) -> list[SavedPrefix]:
    checksum = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    left = os.fstat(file.fileno()).st_size - _CHECKSUM_BYTES

    def take(data: NDArray[np.uint8]) -> None:
        nonlocal left
        left -= len(data)
        if left < 0 or file.readinto(data.data) != len(data):
            raise _Unusable("it is cut off")
        checksum.update(data.data)

    def some(length: int) -> bytes:
        data = np.empty(length, dtype=np.uint8)
        take(data)
        return data.tobytes()

    if some(len(_MAGIC)) != _MAGIC:
        raise _Unusable("it holds something else")
    if some(len(identity)) != identity:
        raise _Unusable("they were computed with another model, other settings or another version")
    prefixes = []
    for head in _heads(some):
        length = 4 * head.tokens
        if head.tokens < 1 or head.state_bytes < 1 or length + head.state_bytes > min(left, most):
            raise _Unusable("a prefix is larger than it may be")
        most -= length + head.state_bytes
        tokens, state = np.empty(length, dtype=np.uint8), np.empty(head.state_bytes, dtype=np.uint8)
        take(tokens)
        take(state)
        prefixes.append(SavedPrefix(head.adapter, tokens.view(np.int32), state))
    if left or file.read(_CHECKSUM_BYTES + 1) != checksum.digest():
        raise _Unusable("its checksum is wrong")
    if not all(holds_cells_of(each.state, len(each.tokens)) for each in prefixes):
        raise _Unusable("a prefix does not hold the cells that it should")
    return prefixes
