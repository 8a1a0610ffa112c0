"""OpenAI's own client, made ready for our server."""

from typing import TYPE_CHECKING, Any

from xinfer_runtime.client.connection import CONNECT_SECONDS, http_options
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.errors import ClientError

if TYPE_CHECKING:
    import openai


def _library() -> Any:
    try:
        import openai
    except ImportError:
        raise ClientError("The package `openai` is not installed here: pip install openai") from None
    return openai


def _options(endpoint: Endpoint) -> dict[str, Any]:
    import httpx

    options = http_options(endpoint, 600.0)
    # A generation may take long; a server that is not there is known at once.
    timeout = httpx.Timeout(600.0, connect=CONNECT_SECONDS)
    return {"verify": options["verify"], "mounts": options["mounts"], "timeout": timeout}


def openai_client(endpoint: Endpoint) -> "openai.OpenAI":
    library = _library()
    http = library.DefaultHttpxClient(**_options(endpoint))
    client: openai.OpenAI = library.OpenAI(
        base_url=endpoint.join("v1"), api_key=endpoint.key or "none", http_client=http
    )
    return client


def async_openai_client(endpoint: Endpoint) -> "openai.AsyncOpenAI":
    library = _library()
    http = library.DefaultAsyncHttpxClient(**_options(endpoint))
    client: openai.AsyncOpenAI = library.AsyncOpenAI(
        base_url=endpoint.join("v1"), api_key=endpoint.key or "none", http_client=http
    )
    return client
