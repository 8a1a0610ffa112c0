"""What the gateway's log says of the way of a request: which replica got it and why, and which it lost."""

import logging

from xinfer_runtime.errors import ReplicaLost
from xinfer_runtime.logs import fields
from xinfer_runtime.messages import ReplicaRequest
from xinfer_runtime.routing.choice import Choice

logger = logging.getLogger("xinfer.router")


def log_route(uid: str, request: ReplicaRequest, replica: str, choice: Choice) -> None:
    """At the level of debugging: the metrics count the same."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    logger.debug(
        "request %s goes to %s: %s, %d tokens cached",
        request.trace or request.id,
        replica,
        choice.reason,
        choice.cached,
        extra=fields(
            request_id=request.trace or request.id,
            model=uid,
            replica=replica,
            reason=choice.reason,
            cached_tokens=choice.cached,
        ),
    )


def log_move(uid: str, request: ReplicaRequest, replica: str, tokens: int, *, computed: bool) -> None:
    """The request has left a replica that is to go, after so many tokens, with what was `computed` or without."""
    logger.info(
        "request %s leaves %s after %d tokens, %s",
        request.trace or request.id,
        replica,
        tokens,
        "with its state" if computed else "to be computed again",
        extra=fields(request_id=request.trace or request.id, model=uid, replica=replica, tokens=tokens),
    )


def log_loss(uid: str, request: ReplicaRequest, replica: str, tokens: int, error: ReplicaLost) -> None:
    """A replica was lost with the request, after so many tokens of its answer."""
    logger.warning(
        "request %s lost its replica after %d tokens: %s",
        request.trace or request.id,
        tokens,
        error,
        extra=fields(request_id=request.trace or request.id, model=uid, replica=replica, tokens=tokens),
    )
