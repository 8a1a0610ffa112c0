"""What a model takes in place of an image: rows of numbers, one where a token would be.

In a sequence each row has an id, as tokens have. Ids come from a hash of the image and are far above those of any
vocabulary, so that the prefix cache finds the same image again and can take no other for it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

_FIRST_ID = 1 << 160
_ROWS_OF_ONE = 1 << 24


@dataclass(frozen=True, eq=False)
class ImageRows:
    """A piece of an image: `values` has the shape (rows, width of the model); its first row's id is `first`."""

    first: int
    values: NDArray[np.float32]

    @property
    def ids(self) -> range:
        return range(self.first, self.first + len(self.values))


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image as the model takes it: rows, and tokens that go before, between and after them."""

    parts: tuple[ImageRows | Sequence[int], ...]

    @property
    def ids(self) -> list[int]:
        """The whole, as it stands in a prompt."""
        return [id for part in self.parts for id in (part.ids if isinstance(part, ImageRows) else part)]

    @property
    def rows(self) -> list[ImageRows]:
        return [part for part in self.parts if isinstance(part, ImageRows)]

    @property
    def bytes(self) -> int:
        return sum(part.values.nbytes for part in self.rows)


@dataclass(frozen=True, eq=False)
class PlacedRows:
    """Rows that stand in a sequence from index `start` on."""

    start: int
    values: NDArray[np.float32]

    @property
    def end(self) -> int:
        return self.start + len(self.values)


def first_id(image: bytes, piece: int) -> int:
    """The id of the first row of the image's piece of that number."""
    digest = hashlib.sha256(b"%d:" % piece + hashlib.sha256(image).digest()).digest()
    return _FIRST_ID + int.from_bytes(digest[:16]) * _ROWS_OF_ONE


def is_token(id: int) -> bool:
    """Whether it is one of a vocabulary's, and not that of a row."""
    return id < _FIRST_ID


def placed(ids: Sequence[int], images: Iterable[SeenImage]) -> tuple[PlacedRows, ...]:
    """Where in a sequence the rows of its images are, in their order."""
    values = {rows.first: rows.values for image in images for rows in image.rows}
    return tuple(PlacedRows(i, values[id]) for i, id in enumerate(ids) if not is_token(id) and id in values)
