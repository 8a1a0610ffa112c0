"""The id of an HTTP request, by which its answer, the gateway's log and the replica's log are found together."""

import re
import uuid
from contextvars import ContextVar

HEADER = "X-Request-Id"
_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""What a client may call its request: enough for UUIDs and trace ids, and nothing that could forge a line of a log."""

_current: ContextVar[str] = ContextVar("xinfer_request_id", default="")


def request_id(sent: str | None) -> str:
    """What the client `sent`, where that can be an id; a new one otherwise."""
    return sent if sent is not None and _ACCEPTED.fullmatch(sent) else f"req-{uuid.uuid4().hex}"


def current_request_id() -> str:
    """Of the request that this task handles; empty outside of requests."""
    return _current.get()


def set_current_request_id(value: str) -> None:
    """Called once per request by the handlers' base, before anything is done for it."""
    _current.set(value)
