"""Which URLs may be fetched for a caller, decided without any I/O.

A server that fetches what callers name reaches places that callers cannot: its own machine, its network, the metadata
of its cloud. So a URL is read by one parser, once; its host must be among those that the administrator allows; and all
addresses that the host has must be public. Whoever fetches connects to such an address, not to the name again.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urljoin, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MayConnect = Callable[[Address], bool]

MAX_URL = 2048
_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[!-~]+")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class RefusedUrlError(Exception):
    """This URL is not fetched; the message says why, and nothing about the network here."""


@dataclass(frozen=True)
class Target:
    """Where to ask for what: `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What goes into the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def read_url(url: str) -> Target:
    """The parts of `url`. Raises `RefusedUrlError` for anything but a plain http or https URL in ASCII."""
    _check_characters(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise RefusedUrlError("it is not a URL") from None
    if parts.scheme not in _PORTS:
        raise RefusedUrlError("it is neither an http nor an https URL")
    if "@" in parts.netloc:
        raise RefusedUrlError("it has a user name")
    if not _is_host(host) or port == 0 or ("[" in parts.netloc) != (":" in host):
        raise RefusedUrlError("it has no valid host")
    path = parts.path or "/"
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], f"{path}?{parts.query}" if parts.query else path)


def redirected(target: Target, location: str) -> Target:
    """Where `target` sends us with `location`. Raises `RefusedUrlError`."""
    _check_characters(location)
    following = read_url(urljoin(f"{target.scheme}://{target.authority}{target.path}", location))
    if target.scheme == "https" and following.scheme == "http":
        raise RefusedUrlError("it redirects from https to http")
    return following


def check_host(target: Target, allowed: Iterable[str]) -> None:
    """Raises `RefusedUrlError` unless a pattern, such as `*.example.org`, allows the host."""
    if not any(fnmatchcase(target.host, pattern.lower()) for pattern in allowed):
        raise RefusedUrlError(f"images are not fetched from {target.host}")


def choose_address(addresses: Sequence[str], may_connect: MayConnect) -> Address:
    """The address to connect to. Raises `RefusedUrlError` if any of a host's addresses is one that may not be used."""
    found = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    if not found or not all(map(may_connect, found)):
        raise RefusedUrlError("its host has no public address")
    return found[0]


def is_public(address: Address) -> bool:
    """Whether `address` is one of the public internet, and so is each IPv4 address that is hidden in it."""
    return all(
        each.is_global and not each.is_multicast and not getattr(each, "is_site_local", False)
        for each in (address, *_hidden(address))
    )


def _hidden(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    hidden: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        hidden.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return [each for each in hidden if each is not None]


def _check_characters(url: str) -> None:
    # Where parsers differ, it is over characters that no URL has.
    if len(url) > MAX_URL or not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise RefusedUrlError(f"it is longer than {MAX_URL} characters or has some that URLs do not have")


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _NAME.fullmatch(host) is not None
    try:
        # Zones name interfaces of this machine.
        return "%" not in host and ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
