"""What a request gets of the vectors that a model computed."""

import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.errors import EngineError, InvalidRequest
from xinfer_runtime.messages import EmbedRequest


def check_dimensions(request: EmbedRequest, dimensions: int) -> None:
    """Raises InvalidRequest for more numbers than a vector has."""
    if request.dimensions is not None and request.dimensions > dimensions:
        raise InvalidRequest(
            f"dimensions {request.dimensions}: this model's vectors have {dimensions}", param="dimensions"
        )


def packed(vector: NDArray[np.float32], request: EmbedRequest, *, squashed: bool = False) -> bytes:
    """A vector, or the score of a pair where there is a query, as little-endian float32.

    `squashed` scores are from 0 to 1 as they come. Raises EngineError for values that are not numbers.
    """
    if not np.isfinite(vector).all():
        raise EngineError("The engine failed on this request: the model computed values that are not numbers")
    if request.query is not None:
        score = vector[:1].astype(np.float64)
        if request.normalize and not squashed:
            # Without an overflow on either side.
            score = np.exp(-np.logaddexp(0.0, -score))
        return score.astype("<f4").tobytes()
    vector = vector[: request.dimensions]
    if request.normalize:
        length = float(np.linalg.norm(vector.astype(np.float64)))
        vector = vector / np.float32(length) if length > 0 else vector
    return vector.astype("<f4").tobytes()
