"""What both clients share about HTTP: settings, and errors of the connection in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from xinfer_runtime._version import __version__
from xinfer_runtime.client.calls import Call
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.errors import ConnectionFailed
from xinfer_runtime.client.trust import trust

CONNECT_SECONDS = 5.0

# A proxy of the site must never see requests to this machine, whatever HTTP_PROXY says.
LOCAL = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def http_options(endpoint: Endpoint, seconds: float) -> dict[str, Any]:
    """Arguments of `httpx.Client` and `httpx.AsyncClient`. Requests wait `seconds` at most for an answer."""
    return {
        "headers": {**endpoint.headers, "User-Agent": f"jupyter-xinfer/{__version__}"},
        "verify": trust(endpoint),
        "timeout": httpx.Timeout(seconds, connect=CONNECT_SECONDS),
        "mounts": dict.fromkeys(LOCAL),
    }


def request_options(call: Call[Any], endpoint: Endpoint, seconds: float) -> dict[str, Any]:
    """Arguments of `httpx.Client.build_request`."""
    read = None if call.patient else seconds
    return {
        "method": call.method,
        "url": endpoint.join(call.path),
        "params": call.query,
        "json": call.body,
        "headers": {"Accept": call.accept},
        "timeout": httpx.Timeout(seconds, connect=CONNECT_SECONDS, read=read),
    }


@contextmanager
def connection_errors(endpoint: Endpoint) -> Iterator[None]:
    """Turns httpx's errors into ConnectionFailed."""
    try:
        yield
    except httpx.TimeoutException as error:
        doing = "connecting" if isinstance(error, httpx.ConnectTimeout) else "waiting for an answer"
        raise ConnectionFailed(f"Gave up {doing}: {endpoint.url} does not respond. Is it overloaded?") from error
    except httpx.ConnectError as error:
        raise ConnectionFailed(_cannot_connect(endpoint, str(error))) from error
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise ConnectionFailed(
            f"The connection to {endpoint.url} broke before the answer was complete ({reason}): did the server stop?"
        ) from error


def _cannot_connect(endpoint: Endpoint, reason: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            f"{endpoint.url} has a TLS certificate that is not trusted here ({reason}). "
            "Pass verify='/path/of/ca.pem', the bundle it was signed with."
        )
    found = "" if endpoint.source == "given" else f", found by {endpoint.source}"
    return f"Cannot reach {endpoint.url}{found} ({reason}). Is it running? Start one with `jupyter xinfer local`."
