"""Which URLs may be fetched."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_xinfer.images.address_policy import (
    RefusedUrlError,
    Target,
    check_host,
    choose_address,
    is_public,
    read_url,
    redirected,
)


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("https://example.com/a.png?b=c#d", Target("https", "example.com", 443, "/a.png?b=c"), "example.com"),
        ("HTTP://Example.COM", Target("http", "example.com", 80, "/"), "example.com"),
        ("http://example.com:8080/%41", Target("http", "example.com", 8080, "/%41"), "example.com:8080"),
        ("http://[2606:4700::1111]:81/", Target("http", "2606:4700::1111", 81, "/"), "[2606:4700::1111]:81"),
    ],
)
def test_a_plain_url_is_taken_apart(url: str, target: Target, authority: str) -> None:
    assert read_url(url) == target
    assert target.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/a.png",
        "//example.com/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "gopher://127.0.0.1:6379/_x",
        "javascript:alert(1)",
        "http:///a.png",
        "http://:80/",
        "http://user:password@example.com/",
        "http://example.com@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com\r\nX-Injected: 1/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\u00e4",
        "http://\u2460\u2461\u2462.\u2463/",
        "http://ex\u00e4mple.com/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://example.com:-1/",
        "http://[::1/",
        "http://[::1%25lo]/",
        "http://[v1.x]/",
        "http://-/",
        "http://exam%70le.com/",
        "https://example.com/" + "a" * 3000,
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(RefusedUrlError):
        read_url(url)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        target = read_url("http://" + text)
    except RefusedUrlError:
        return
    assert target.host
    assert 0 < target.port < 65536


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "fec0::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
        "2001:0:7f00:1::",
    ],
)
def test_an_address_that_is_not_public_is_not_connected_to(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(RefusedUrlError, match="no public address"):
        choose_address([address], is_public)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_a_public_address_is_connected_to(address: str) -> None:
    assert str(choose_address([address], is_public)) == str(ipaddress.ip_address(address))


@pytest.mark.parametrize("addresses", [[], ["1.1.1.1", "127.0.0.1"], ["fe80::1%eth0"]])
def test_one_bad_address_spoils_a_host(addresses: list[str]) -> None:
    with pytest.raises(RefusedUrlError):
        choose_address(addresses, is_public)


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        (["images.example.org"], True),
        (["*.example.org"], True),
        (["*"], True),
        (["*.EXAMPLE.org"], True),
        (["example.org"], False),
        (["*example.com"], False),
        ([], False),
    ],
)
def test_only_the_administrators_hosts_are_asked(patterns: list[str], allowed: bool) -> None:
    target = read_url("https://images.example.org/")
    if allowed:
        check_host(target, patterns)
    else:
        with pytest.raises(RefusedUrlError, match="not fetched from"):
            check_host(target, patterns)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b", "https://example.com:8443/b"),
        ("b", "https://example.com:8443/a/b"),
        ("https://other.example/c", "https://other.example/c"),
        ("//other.example/c", "https://other.example/c"),
    ],
)
def test_a_redirect_is_read_like_any_url(location: str, url: str) -> None:
    assert redirected(read_url("https://example.com:8443/a/x"), location) == read_url(url)


@pytest.mark.parametrize("location", ["http://example.com/", "file:///etc/passwd", "https://a@b/", "\r\n"])
def test_a_redirect_to_worse_is_refused(location: str) -> None:
    with pytest.raises(RefusedUrlError):
        redirected(read_url("https://example.com/"), location)
