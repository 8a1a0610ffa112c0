"""The server behind a real nginx that ends TLS, with the configuration that the docs give."""

import asyncio
import datetime
import ipaddress
import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.conftest import BASE_URL, XinferServer, closed, free_port, start_server
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

DOCS = Path(__file__).parents[2] / "docs" / "administration.md"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@dataclass
class Site:
    """The server as its users see it: `url` is nginx's."""

    server: XinferServer
    url: str
    certificate: Path

    def client(self, *, headers: dict[str, str] | None = None) -> httpx.Client:
        verify = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(base_url=self.url, headers=headers, verify=verify, timeout=60)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    written, secret = folder / "nginx.pem", folder / "nginx.key"
    written.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return written, secret


def configuration(folder: Path, upstream: str, port: int, certificate: Path, key: Path) -> str:
    """nginx's, around the blocks of the docs."""
    documented = re.search(r"```nginx\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert documented is not None
    outer, _, location = documented[1].partition("location")
    location = location.replace("/user/ann/", BASE_URL).replace("http://127.0.0.1:8888", upstream)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # The folder is this user's alone; as root, nginx would do the work as somebody else.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
{temporary}
access_log off;
{outer}
server {{
listen 127.0.0.1:{port} ssl;
ssl_certificate {certificate};
ssl_certificate_key {key};
location{location}
}}
}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    assert NGINX is not None
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    server = start_server(folder, "--ServerApp.trust_xheaders=True", "--ServerApp.allow_remote_access=True")
    nginx = None
    try:
        server.launch(model_name="xinfer-demo")
        certificate, key = write_certificate(folder)
        port, address = free_port(), urlsplit(server.url)
        written = folder / "nginx.conf"
        written.write_text(configuration(folder, f"http://{address.netloc}", port, certificate, key))
        nginx = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(written), "-e", str(folder / "error.log")])
        found = Site(server, f"https://127.0.0.1:{port}{BASE_URL}", certificate)
        wait_for(found, nginx, folder / "error.log")
        yield found
    finally:
        if nginx is not None:
            nginx.terminate()
            nginx.wait(30)
        server.stop()


def wait_for(site: Site, nginx: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with site.client() as http:
                assert http.get("health").status_code == 200
                return
        except httpx.TransportError:
            assert nginx.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def test_a_stream_is_not_held_back(site: Site) -> None:
    """While the first piece is read, the model still writes: nginx, which buffers, has passed it on."""
    with (
        httpx.Client(verify=ssl.create_default_context(cafile=str(site.certificate))) as transport,
        openai.OpenAI(base_url=f"{site.url}v1", api_key=site.server.token, http_client=transport) as client,
    ):
        stream = client.completions.create(
            model="xinfer-demo", prompt="Once", stream=True, max_tokens=900, n=8, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        running = 0
        # The load of a replica is told five times a second.
        for _ in range(100):
            with site.server.client() as direct:
                running = direct.get("v1/models/xinfer-demo").json()["replicas"][0]["running"]
            if running:
                break
            time.sleep(0.02)
        stream.close()

    assert running


def test_a_large_body_passes(site: Site) -> None:
    question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Hello! " * 10**6}]}
    with site.client(headers=site.server.headers) as http:
        answer = http.post("v1/chat/completions", json=question)

    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_login_in_the_browser_works_with_its_cookie_and_xsrf_token(site: Site) -> None:
    question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}
    with site.client() as browser:
        xsrf = browser.get("login").cookies["_xsrf"]
        answered = browser.post("login", data={"password": site.server.token, "_xsrf": xsrf})
        refused = browser.post("v1/chat/completions", json=question)
        headers = {"X-XSRFToken": browser.cookies["_xsrf"], "Origin": site.url.partition("/user/")[0]}
        allowed = browser.post("v1/chat/completions", json=question, headers=headers)
        foreign = browser.post(
            "v1/chat/completions", json=question, headers={**headers, "Origin": "https://elsewhere.example"}
        )

    assert answered.status_code == 302
    assert urlsplit(answered.headers["Location"]).path.startswith(BASE_URL)
    assert "secure" in answered.headers["Set-Cookie"].lower()
    assert refused.status_code == 403
    assert allowed.status_code == 200, allowed.text
    assert foreign.status_code in (403, 404)


def test_every_url_that_is_told_works(site: Site) -> None:
    with site.client(headers=site.server.headers) as http:
        told = http.get("xinfer/info").json()
        described = http.get("openapi.json").json()
        server_url = urljoin(site.url, described["servers"][0]["url"])
        models = http.get(f"{server_url}/v1/models")
        dashboard = http.get(urljoin(site.url, told["dashboard"]), follow_redirects=True)
        page = http.get("xinfer/api")
        link = re.search(r'href="([^"]+openapi.json)"', page.text)
        assert link is not None
        linked = http.get(urljoin(str(page.url), link[1]))

    assert told["base_url"] == BASE_URL
    assert models.status_code == 200
    assert dashboard.status_code == 200
    assert str(dashboard.url).startswith(site.url)
    assert linked.json() == described


async def test_websockets_pass(site: Site) -> None:
    """The side panel's events, and the dashboard's pages."""
    for path in ("api/events/subscribe", "xinfer/dask/status/ws"):
        request = HTTPRequest(
            f"{site.url.replace('https', 'wss')}{path}",
            headers=site.server.headers,
            ca_certs=str(site.certificate),
            request_timeout=30,
        )
        socket = await asyncio.wait_for(websocket_connect(request), 30)
        assert socket.protocol is not None
        await closed(socket)


def test_the_clients_address_is_known(site: Site) -> None:
    """An address that the client makes up does not reach the server, only nginx's word does."""
    with site.client(headers={"X-Real-IP": "203.0.113.7"}) as http:
        http.get("v1/models")

    assert "203.0.113.7" not in site.server.log.read_text()
