"""The one exception tree of jupyter-xinfer.

    XinferError                     500  internal_error
    ├── InvalidRequest              400  invalid_request         the caller's input; `param` names the field
    │   ├── ContextLengthExceeded   400  context_length_exceeded
    │   └── ModelFileError          400  model_file_error        a model file is missing, unreadable or broken
    ├── AuthenticationRequired      401  authentication_required
    ├── PermissionDenied            403  permission_denied
    ├── NotFound                    404  not_found
    │   └── ModelNotFound           404  model_not_found
    ├── MethodNotAllowed            405  method_not_allowed
    ├── Conflict                    409  conflict                such as a model uid in use
    ├── RequestTooLarge             413  request_too_large
    ├── Overloaded                  429  overloaded              try again later
    │   └── RateLimited             429  rate_limit_exceeded     a limit of the caller's own; `retry_after` seconds
    ├── Cancelled                   499  cancelled               the caller went away, or a launch was cancelled
    ├── EngineError                 500  engine_error            the engine failed; other requests go on
    └── Unavailable                 503  unavailable
        ├── ModelNotReady           503  model_not_ready         still loading, or restarting
        ├── DoesNotFit              503  does_not_fit            no node has the memory; the message has the numbers
        ├── ReplicaLost             503  replica_lost            the process that served the request is gone
        └── ClusterUnavailable      503  cluster_unavailable     no scheduler, or it does not answer

Errors cross process borders as `ErrorInfo` and come back as the same class. The HTTP status belongs to the class, so
the mapping to HTTP is stated once, here.
"""

from typing import ClassVar

from msgspec import Struct


class ErrorInfo(Struct, frozen=True, omit_defaults=True):
    """An error on the wire. `code` is the class's code; `param` names the field of the request at fault."""

    code: str
    message: str
    param: str | None = None


class XinferError(Exception):
    """Base of every error a user may see. The message says what happened, where, and what to do."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None, place: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        """Seconds until another try makes sense, where that is known."""
        self.place = place
        """Where on the machine it happened, and what the system said: for its log and terminal. No answer has it."""

    def __str__(self) -> str:
        """What logs and terminals show: the message with the place."""
        return f"{self.message} ({self.place})" if self.place else self.message

    @property
    def info(self) -> ErrorInfo:
        return ErrorInfo(code=self.code, message=self.message, param=self.param)

    @property
    def openai_type(self) -> str:
        """The `type` of OpenAI's error object that goes with this status."""
        return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )


class InvalidRequest(XinferError):
    status = 400
    code = "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class ModelFileError(InvalidRequest):
    code = "model_file_error"


class AuthenticationRequired(XinferError):
    status = 401
    code = "authentication_required"


class PermissionDenied(XinferError):
    status = 403
    code = "permission_denied"


class NotFound(XinferError):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(XinferError):
    status = 405
    code = "method_not_allowed"


class Conflict(XinferError):
    status = 409
    code = "conflict"


class RequestTooLarge(XinferError):
    status = 413
    code = "request_too_large"


class Overloaded(XinferError):
    status = 429
    code = "overloaded"


class RateLimited(Overloaded):
    code = "rate_limit_exceeded"


class Cancelled(XinferError):
    status = 499
    code = "cancelled"


class DeadlineExceeded(XinferError):
    """Nobody wants the answer any more: the time that the caller gave it is over."""

    status = 408
    code = "deadline_exceeded"


class EngineError(XinferError):
    code = "engine_error"


class Unavailable(XinferError):
    status = 503
    code = "unavailable"


class ModelNotReady(Unavailable):
    code = "model_not_ready"


class DoesNotFit(Unavailable):
    code = "does_not_fit"


class ReplicaLost(Unavailable):
    code = "replica_lost"


class ClusterUnavailable(Unavailable):
    code = "cluster_unavailable"


def _tree(root: type[XinferError]) -> dict[str, type[XinferError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


_BY_CODE = _tree(XinferError)


def from_info(info: ErrorInfo) -> XinferError:
    """The exception that `info` was made from; an unknown code gives the base class."""
    return _BY_CODE.get(info.code, XinferError)(info.message, param=info.param)
