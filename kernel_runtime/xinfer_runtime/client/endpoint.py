"""The address of a server and the key that opens it."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from xinfer_runtime.errors import InvalidRequest

# What people copy from the browser or from an OpenAI client's settings, behind the server's base URL.
_PAGE = re.compile(r"(?<!/user)/(?:lab|tree|v1)(?:/.*)?$")
# A server may listen on every address, which is no address to connect to.
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Endpoint:
    """Where to send requests: `url` is Jupyter's base URL and ends in "/". The key is never part of a repr."""

    url: str
    key: str | None = field(default=None, repr=False)
    verify: bool | str = True
    """False accepts any TLS certificate; a string is the path of a CA bundle."""
    source: str = "given"
    """Where the address was found, for messages."""
    certificate: str = ""
    """The server's own, in PEM, where its runtime file has it."""

    def join(self, path: str) -> str:
        return self.url + path.lstrip("/")

    def model_path(self, uid: str) -> str:
        return f"v1/models/{quote(uid, safe='')}"

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}


def parse_endpoint(
    address: str, key: str | None = None, *, verify: bool | str = True, source: str = "given"
) -> Endpoint:
    """An endpoint from what a user may paste: a base URL, the URL of a page of JupyterLab with `?token=`, or one ending
    in `/v1`. An explicit `key` wins over the token in the URL.

    Raises:
        InvalidRequest: it is no http or https URL.
    """
    parts = urlsplit(address if "://" in address else f"http://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidRequest(
            f"{address!r} is not the address of a server: expected one like http://127.0.0.1:8888/",
            param="base_url",
        )
    host = _EVERY_ADDRESS.get(host, host)
    netloc = f"[{host}]" if ":" in host else host
    if port is not None:
        netloc += f":{port}"
    path = _PAGE.sub("", parts.path).rstrip("/") + "/"
    token = parse_qs(parts.query).get("token", [None])[0]
    return Endpoint(urlunsplit((parts.scheme, netloc, path, "", "")), key or token, verify, source)
