"""OpenAI's own client, made ready for our server."""

from typing import TYPE_CHECKING, Any

from xinfer_runtime.client.connection import CONNECT_SECONDS, LOCAL
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.errors import ClientError
from xinfer_runtime.client.trust import trust

if TYPE_CHECKING:
    import openai

_GENERATION_SECONDS = 600.0


def _library() -> Any:
    try:
        import openai
    except ImportError:
        raise ClientError("The package `openai` is not installed here: pip install openai") from None
    return openai


def _options(library: Any, endpoint: Endpoint) -> dict[str, Any]:
    # A generation may take long; a server that is not there is known at once. The class of the timeout must be the
    # library's: its HTTP client need not be the one we use.
    timeout = library.Timeout(_GENERATION_SECONDS, connect=CONNECT_SECONDS)
    return {"verify": trust(endpoint), "mounts": dict.fromkeys(LOCAL), "timeout": timeout}


def openai_client(endpoint: Endpoint) -> "openai.OpenAI":
    library = _library()
    http = library.DefaultHttpxClient(**_options(library, endpoint))
    client: openai.OpenAI = library.OpenAI(
        base_url=endpoint.join("v1"), api_key=endpoint.key or "none", http_client=http
    )
    return client


def async_openai_client(endpoint: Endpoint) -> "openai.AsyncOpenAI":
    library = _library()
    http = library.DefaultAsyncHttpxClient(**_options(library, endpoint))
    client: openai.AsyncOpenAI = library.AsyncOpenAI(
        base_url=endpoint.join("v1"), api_key=endpoint.key or "none", http_client=http
    )
    return client
