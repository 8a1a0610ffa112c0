"""One ranged request to a model hub, and what its answer says of the whole file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

from xinfer_runtime.errors import ModelFileError, Unavailable

_REDIRECTS = 5
_SECONDS = 10.0
_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_USER_AGENT = "jupyter-xinfer"


@dataclass(frozen=True)
class Part:
    """The bytes of a file from `start` on, as they come. `size` and `etag` are those of the whole file."""

    start: int
    size: int
    etag: str
    chunks: Iterator[bytes]


def open_client() -> httpx.Client:
    return httpx.Client(timeout=_SECONDS, headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"})


@contextmanager
def ask(client: httpx.Client, url: str, token: str | None, start: int, end: int | None = None) -> Iterator[Part]:
    """Ask for the bytes from `start` to `end`. Redirections are followed; the token goes to the hub alone.

    Raises ModelFileError for a file that is not there or not for us, Unavailable where asking again may help.
    """
    hub, place, linked = urlsplit(url), url, ""
    for _ in range(_REDIRECTS + 1):
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if token and _origin(place) == _origin(url):
            headers["Authorization"] = f"Bearer {token}"
        try:
            with client.stream("GET", place, headers=headers) as answer:
                # Hugging Face names the file's SHA-256 where it sends elsewhere for it.
                linked = linked or answer.headers.get("x-linked-etag", "")
                if not answer.has_redirect_location:
                    yield _part(answer, linked, url)
                    return
                place = urljoin(place, answer.headers["location"])
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{hub.netloc} does not answer as it should: {type(error).__name__}") from error
        if hub.scheme == "https" and urlsplit(place).scheme != "https":
            raise ModelFileError(f"{hub.netloc} redirects to an address without TLS", param="model_path")
    raise ModelFileError(f"{hub.netloc} redirects more than {_REDIRECTS} times", param="model_path")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _part(answer: httpx.Response, linked: str, url: str) -> Part:
    etag = (linked or answer.headers.get("etag", "")).removeprefix("W/").strip('"')
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if found is None:
            raise Unavailable(f"{urlsplit(url).netloc} does not say which part of the file it sends")
        return Part(int(found[1]), int(found[2]), etag, answer.iter_raw(_CHUNK))
    if answer.status_code == httpx.codes.OK and (length := answer.headers.get("content-length", "")).isdecimal():
        return Part(0, int(length), etag, answer.iter_raw(_CHUNK))
    raise _refusal(answer.status_code, url)


def _refusal(status: int, url: str) -> ModelFileError | Unavailable:
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return ModelFileError(
            f"{url} is private or gated (HTTP {status}). Accept its terms on the hub, and run `hf auth login` on the "
            "nodes as the user of the service.",
            param="model_path",
        )
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        return ModelFileError(f"{url} does not exist (HTTP {status})", param="model_path")
    return Unavailable(f"{urlsplit(url).netloc} answered with HTTP {status}")
