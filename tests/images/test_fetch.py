"""Fetching from real servers on loopback, which the tests allow and nobody else does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from jupyter_xinfer.images import fetch
from jupyter_xinfer.images.address_policy import Address, RefusedUrlError
from jupyter_xinfer.images.fetch import Fetcher

TLS = b"\x16"
"""The first byte of a handshake."""
PIXELS = b"\x89PNG" + b"x" * 1000


def loopback(address: Address) -> bool:
    return address.is_loopback


def answer(status: str = "200 OK", body: bytes = PIXELS, **headers: str) -> bytes:
    named = {"Content_Type": "image/png", "Content_Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


class Site:
    """A server that answers each path with the bytes in `answers`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.hang = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            start = await reader.readexactly(1)
            if start == TLS:
                return
            head = (start + await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            writer.write(self.answers.get(head.split()[1], answer("404 Not Found")))
            await writer.drain()
            if self.hang:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    here = Site()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
    yield here
    server.close()
    await server.wait_closed()


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher(["localhost"], loopback)


@pytest.fixture(autouse=True)
def ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` may also be ::1, where nothing listens."""

    async def resolve(target: fetch.Target) -> list[str]:
        found = await resolved(target)
        return [address for address in found if ":" not in address]

    resolved = fetch._resolve
    monkeypatch.setattr(fetch, "_resolve", resolve)


async def test_an_image_is_fetched_with_nothing_of_ours(site: Site, fetcher: Fetcher) -> None:
    site.answers["/a.png?b=c"] = answer()

    assert await fetcher.fetch(f"{site.url}/a.png?b=c", 10_000) == PIXELS
    [head] = site.asked
    assert f"host: {site.url.removeprefix('http://')}" in head.lower()
    assert "cookie" not in head.lower()
    assert "authorization" not in head.lower()


async def test_without_the_tests_permission_loopback_is_not_asked(site: Site) -> None:
    for host in ("localhost", "127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"):
        url = site.url.replace("localhost", host)
        with pytest.raises(RefusedUrlError, match="no public address"):
            await Fetcher(["*"]).fetch(f"{url}/a.png", 10_000)
    assert site.asked == []


async def test_a_name_that_does_not_exist_is_told_like_a_private_one() -> None:
    with pytest.raises(RefusedUrlError, match="no public address"):
        await Fetcher(["*"]).fetch("http://no-such-host.invalid/a.png", 10_000)


async def test_a_host_that_is_not_allowed_is_not_asked(site: Site) -> None:
    with pytest.raises(RefusedUrlError, match="not fetched from localhost"):
        await Fetcher(["example.org"], loopback).fetch(f"{site.url}/a.png", 10_000)
    assert site.asked == []


async def test_a_redirect_is_followed_where_it_may_go(site: Site, fetcher: Fetcher) -> None:
    site.answers["/a"] = answer("302 Found", b"", Location="/b.png")
    site.answers["/b.png"] = answer()

    assert await fetcher.fetch(f"{site.url}/a", 10_000) == PIXELS


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "not fetched from"),
        ("http://127.0.0.1:1/", "not fetched from"),
        ("file:///etc/passwd", "neither an http"),
        ("http://user@localhost/", "user name"),
        ("/a", "redirects more than"),
    ],
)
async def test_a_redirect_elsewhere_is_refused(site: Site, fetcher: Fetcher, location: str, reason: str) -> None:
    site.answers["/a"] = answer("301 Moved Permanently", b"", Location=location)

    with pytest.raises(RefusedUrlError, match=reason):
        await fetcher.fetch(f"{site.url}/a", 10_000)


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        (answer("404 Not Found"), "status 404"),
        (answer(Content_Type="text/html"), "not an image"),
        (answer(Content_Encoding="gzip"), "compressed"),
        (answer(body=b"x" * 20_000), "more than 10000 bytes"),
        (answer(Content_Length="1900"), "as it should"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + b"x" * 20_000, "more than 10000 bytes"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "as it should"),
        (b"", "as it should"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "status 302"),
    ],
)
async def test_what_is_no_small_image_is_refused(site: Site, fetcher: Fetcher, answered: bytes, reason: str) -> None:
    site.answers["/a.png"] = answered

    with pytest.raises(RefusedUrlError, match=reason):
        await fetcher.fetch(f"{site.url}/a.png", 10_000)


async def test_a_slow_host_is_given_up(site: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_SECONDS", 0.2)
    site.hang = True
    site.answers["/a.png"] = answer()[:-10]

    with pytest.raises(RefusedUrlError, match="within"):
        await fetcher.fetch(f"{site.url}/a.png", 10_000)


async def test_a_host_without_a_certificate_for_its_name_is_refused(site: Site, fetcher: Fetcher) -> None:
    with pytest.raises(RefusedUrlError, match="as it should"):
        await fetcher.fetch(f"{site.url.replace('http', 'https')}/a.png", 10_000)
