"""A server whose Jupyter has a certificate: everything goes on as before, encrypted."""

import datetime
import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.conftest import XinferServer, start_server

from xinfer_runtime.client import Client


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = write_certificate(folder)
    options = [f"--ServerApp.certfile={certificate}", f"--ServerApp.keyfile={key}"]
    running = start_server(folder, *options, ca=certificate)
    try:
        running.launch(model_name="xinfer-demo")
        yield running
    finally:
        running.stop()


def test_openais_client_streams_over_tls(server: XinferServer) -> None:
    with (
        server.client() as http,
        openai.OpenAI(base_url=f"{server.url}v1", api_key=server.token, http_client=http) as client,
    ):
        stream = client.chat.completions.create(
            model="xinfer-demo", messages=[{"role": "user", "content": "Hello!"}], max_tokens=8, stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_without_tls_nothing_is_answered(server: XinferServer) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url.replace('https', 'http')}health", timeout=5)


def test_our_client_checks_the_certificate(server: XinferServer) -> None:
    with Client(server.url, api_key=server.token, verify=str(server.ca)) as client:
        assert list(client.list_models()) == ["xinfer-demo"]
    with (
        Client(server.url, api_key=server.token) as client,
        pytest.raises(Exception, match=r"verify='/path/of/ca\.pem'"),
    ):
        client.list_models()


def test_a_kernel_of_the_server_finds_it_by_itself(server: XinferServer) -> None:
    code = "from xinfer_runtime.client import Client\nwith Client() as c: print(list(c.list_models()))"
    env = {name: value for name, value in server.env.items() if name != "XINFER_BASE_URL"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "['xinfer-demo']", found.stderr


def test_urls_that_are_told_are_those_of_tls(server: XinferServer) -> None:
    with server.client() as http:
        assert http.get("openapi.json").json()["servers"][0]["url"].startswith(("https://", "/"))
