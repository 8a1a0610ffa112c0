"""Turn a JSON body into a Struct, or into an error that names the field at fault."""

import re
from typing import TypeVar

import msgspec

from jupyter_xinfer.protocol.nesting import MOST, deeper_than
from xinfer_runtime.errors import InvalidRequest

T = TypeVar("T")

# msgspec ends its messages with the JSON path of the fault, such as "- at `$.messages[0].role`".
_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`")


def decode(body: bytes, kind: type[T]) -> T:
    """Decode `body` as `kind`. Raises `InvalidRequest` with `param` set to the field at fault where there is one."""
    try:
        decoded = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _as_invalid_request(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise _too_deep() from None
    if deeper_than(body):
        raise _too_deep()
    return decoded


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The request body is nested deeper than {MOST} levels.")


def _as_invalid_request(message: str) -> InvalidRequest:
    at = _PATH.search(message)
    path = at.group(1) if at else ""
    reason = message[: at.start()] if at else message
    named = _MISSING.search(reason) or _UNKNOWN.search(reason)
    if named is not None:
        field = f"{path}.{named.group(1)}" if path else named.group(1)
        what = "is required" if _MISSING.search(reason) else "is not a parameter this server knows"
        return InvalidRequest(f"`{field}` {what}.", param=field)
    if path:
        return InvalidRequest(f"`{path}` is invalid: {reason[:1].lower()}{reason[1:]}.", param=path)
    return InvalidRequest(f"The request body is invalid: {reason}.")
