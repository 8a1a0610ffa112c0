"""One line of the log for each request on our routes, with the id that its client and the replicas know it by."""

import logging
import re

from tornado.httputil import HTTPServerRequest

from xinfer_runtime.logs import fields

logger = logging.getLogger("xinfer.access")

CLIENT_CLOSED: int = 499
"""nginx's status of requests whose client went away before the answer was complete."""
_UID = re.compile(r"[A-Za-z0-9._-]{1,100}")


def log_access(request: HTTPServerRequest, status: int, request_id: str, caller: str, model: str | None) -> None:
    """Without the query, where a token may be. What succeeds without doing anything is for debugging alone."""
    quiet = status < 400 and request.method in ("GET", "HEAD", "OPTIONS")
    seconds = request.request_time()
    logger.log(
        logging.DEBUG if quiet else logging.INFO,
        "request %s: %d %s %s (%s@%s) %.3f s",
        request_id,
        status,
        request.method,
        _printable(request.path),
        caller,
        request.remote_ip,
        seconds,
        extra=fields(
            request_id=request_id,
            status=status,
            method=request.method,
            path=request.path,
            caller=caller,
            address=request.remote_ip,
            # The word of a client, which may be anything.
            model=model if model is not None and _UID.fullmatch(model) else None,
            seconds=round(seconds, 4),
        ),
    )


def _printable(path: str) -> str:
    return path.encode("ascii", "backslashreplace").decode()
