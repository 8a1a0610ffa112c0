"""The join endpoint and its client, over TLS on the loopback."""

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from xinfer_runtime.cluster import certificates
from xinfer_runtime.cluster.authority import Addresses, Authority, find_addresses, find_credentials, save_node
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.join_tokens import JoinToken, JoinTokens
from xinfer_runtime.cluster.joining import JoinServer, join
from xinfer_runtime.errors import ClusterUnavailable, Conflict, PermissionDenied


@pytest.fixture
async def token(tmp_path: Path) -> AsyncIterator[JoinToken]:
    authority = Authority.open(tmp_path)
    server = JoinServer(authority, authority.own_credentials(), "tls://10.0.0.1:8786")
    port = await server.start("127.0.0.1", 0)
    _, secret = JoinTokens(tmp_path).create(60, now=time.time())
    yield JoinToken(address=f"127.0.0.1:{port}", fingerprint=certificates.fingerprint(authority.ca), secret=secret)
    await server.close()


async def connects(server: TlsCredentials, client: TlsCredentials) -> bool:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server.server_context())
    port = listener.sockets[0].getsockname()[1]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client.client_context())
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.transport.abort()
        return answer == b"hello\n"
    except OSError:
        return False
    finally:
        listener.close()


async def test_a_node_gets_credentials_that_the_cluster_takes(token: JoinToken, tmp_path: Path) -> None:
    credentials, addresses = await join(token)
    assert addresses == Addresses("tls://10.0.0.1:8786", token.address)
    supervisor = find_credentials(tmp_path)
    assert supervisor is not None
    assert await connects(supervisor, credentials)
    assert await connects(credentials, supervisor)
    assert not await connects(supervisor, TlsCredentials.create())


async def test_a_token_lets_one_node_in(token: JoinToken) -> None:
    await join(token)
    with pytest.raises(PermissionDenied, match="is used"):
        await join(token)


async def test_a_wrong_secret_gets_nothing(token: JoinToken) -> None:
    with pytest.raises(PermissionDenied, match="does not know"):
        await join(replace(token, secret="guess"))


async def test_the_secret_is_not_said_to_another_ca(token: JoinToken, tmp_path: Path) -> None:
    with pytest.raises(PermissionDenied, match="is not the supervisor that made this token"):
        await join(replace(token, fingerprint="00" * 32))
    assert [row.used for row in JoinTokens(tmp_path).rows()] == [0.0]


async def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(ClusterUnavailable, match=r"127\.0\.0\.1:1 did not answer"):
        await join(JoinToken(address="127.0.0.1:1", fingerprint="", secret=""))


def test_a_home_keeps_its_ca_and_nobody_else_reads_it(tmp_path: Path) -> None:
    first, second = Authority.open(tmp_path), Authority.open(tmp_path)
    second.own_credentials()
    assert first.ca == second.ca
    files = [path for path in (tmp_path / "tls").iterdir() if path.suffix == ".pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_a_node_does_not_overwrite_a_supervisors_home(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    with pytest.raises(Conflict, match="home of another supervisor"):
        save_node(tmp_path, TlsCredentials.create(), Addresses("tls://a:1", "a:2"))


def test_what_a_node_got_is_found_again(tmp_path: Path) -> None:
    assert find_credentials(tmp_path) is None
    assert find_addresses(tmp_path) is None
    credentials = TlsCredentials.create()
    save_node(tmp_path, credentials, Addresses("tls://a:1", "a:2"))
    assert find_credentials(tmp_path) == credentials
    assert find_addresses(tmp_path) == Addresses("tls://a:1", "a:2")


@pytest.mark.parametrize("request_text", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END"])
def test_a_request_that_is_none_is_refused(request_text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        certificates.requested_key(request_text)
