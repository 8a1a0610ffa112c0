"""What a replica's log says of each request: one line at its end, under the id that gateway and client know it by."""

import logging
from time import monotonic

from xinfer_runtime.logs import fields
from xinfer_runtime.messages import Delta, ReplicaRequest

logger = logging.getLogger("xinfer.request")


class RequestLog:
    """Of one request, from its arrival on. It never holds the prompt or the answer."""

    __slots__ = ("_arrived", "_first", "_id", "_replica")

    def __init__(self, request: ReplicaRequest, replica: str) -> None:
        self._replica = replica
        self._id = request.trace or request.id
        self._arrived = monotonic()
        self._first: float | None = None

    def observe(self, delta: Delta) -> None:
        if self._first is None and (delta.token_ids or delta.vectors):
            self._first = monotonic()
        if not delta.last:
            return
        if delta.error is not None:
            self._write(delta.error.code)
        elif delta.usage is not None:
            usage = delta.usage
            self._write(f"{delta.finish_reason}", usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        else:
            self._write(f"{delta.finish_reason}")

    def left(self) -> None:
        """It goes on at another replica."""
        self._write("left")

    def aborted(self) -> None:
        self._write("aborted")

    def _write(
        self, outcome: str, prompt: int | None = None, completion: int | None = None, cached: int | None = None
    ) -> None:
        seconds = monotonic() - self._arrived
        first = None if self._first is None else round(self._first - self._arrived, 4)
        tokens = "" if prompt is None else f", {prompt} tokens in ({cached} cached) and {completion} out"
        logger.info(
            "request %s: %s after %.3f s%s",
            self._id,
            outcome,
            seconds,
            tokens,
            extra=fields(
                request_id=self._id,
                replica=self._replica,
                outcome=outcome,
                seconds=round(seconds, 4),
                first_token_seconds=first,
                prompt_tokens=prompt,
                cached_tokens=cached,
                completion_tokens=completion,
            ),
        )
