"""Fetches an image that a caller names: `address_policy.py` decides, this does it."""

import asyncio
import socket
import ssl

import httpx

from jupyter_xinfer.images.address_policy import (
    Address,
    MayConnect,
    RefusedUrlError,
    Target,
    check_host,
    choose_address,
    is_public,
    read_url,
    redirected,
)

MAX_SECONDS = 10.0
MAX_REDIRECTS = 3
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "jupyter-xinfer"}


class Fetcher:
    """Fetches from hosts that one of the patterns `hosts` allows, at addresses that `may_connect` allows."""

    def __init__(self, hosts: list[str], may_connect: MayConnect = is_public) -> None:
        self._hosts = hosts
        self._may_connect = may_connect
        self._context: ssl.SSLContext | None = None

    async def fetch(self, url: str, max_bytes: int) -> bytes:
        """The body of the answer. Raises `RefusedUrlError` whenever it is not an image of at most `max_bytes`."""
        try:
            async with asyncio.timeout(MAX_SECONDS):
                target = read_url(url)
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await self._ask(target, max_bytes)
                    if isinstance(answer, bytes):
                        return answer
                    target = redirected(target, answer)
                raise RefusedUrlError(f"it redirects more than {MAX_REDIRECTS} times")
        except TimeoutError:
            raise RefusedUrlError(f"it did not come within {MAX_SECONDS:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError):
            raise RefusedUrlError("its host does not answer as it should") from None

    async def _ask(self, target: Target, max_bytes: int) -> bytes | str:
        """The body, or where to go instead."""
        check_host(target, self._hosts)
        address = choose_address(await _resolve(target), self._may_connect)
        if self._context is None:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        # No proxy and no cookies of ours; the name is not looked up again, and its certificate is checked all the same.
        async with httpx.AsyncClient(trust_env=False, verify=self._context, timeout=MAX_SECONDS) as client:
            request = client.build_request(
                "GET",
                f"{target.scheme}://{_literal(address)}:{target.port}{target.path}",
                headers={**_HEADERS, "Host": target.authority},
                extensions={"sni_hostname": target.host},
            )
            answer = await client.send(request, stream=True)
            try:
                return await _read(answer, max_bytes)
            finally:
                await answer.aclose()


async def _resolve(target: Target) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # Whether a name exists in the network here is nobody's business: this is what a private address gets, too.
        return []
    return [str(each[4][0]) for each in found]


def _literal(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


async def _read(answer: httpx.Response, max_bytes: int) -> bytes | str:
    if answer.has_redirect_location:
        return str(answer.headers["Location"])
    if answer.status_code != 200:
        raise RefusedUrlError(f"its host answered with status {answer.status_code}")
    if not answer.headers.get("Content-Type", "").lower().startswith("image/"):
        raise RefusedUrlError("its host says that it is not an image")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise RefusedUrlError("its host compressed it")
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > max_bytes:
            raise RefusedUrlError(f"it has more than {max_bytes} bytes")
    return bytes(body)
