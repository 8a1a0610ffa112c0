"""The server as JupyterHub starts it: below the Hub's proxy, with the Hub's users and tokens."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import openai
import psutil
import pytest
from tests.conftest import closed, free_port
from tests.integration.client_environments import node_package, python_packages
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

# What JupyterHub needs beside what this environment has.
HUB = (
    *("jupyterhub==6.1.1", "alembic==1.20.1", "Mako==1.4.3", "SQLAlchemy==2.1.9", "certipy==0.2.3", "oauthlib==4.0.1"),
    *("pamela==1.2.0", "aiodns==4.0.4", "pycares==5.2.1"),
)
PROXY = ("configurable-http-proxy", "5.3.0")
TOKEN = "0123456789abcdef" * 2
PASSWORD = "a-password-of-no-value"
QUESTION = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}

pytestmark = pytest.mark.timeout(400)


@dataclass
class Hub:
    """A Hub below `/lab/`, where ann's server runs. `url` is that server's."""

    root: str
    home: Path
    log: Path

    @property
    def url(self) -> str:
        return f"{self.root}user/ann/"

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else None
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, follow_redirects=False)

    @contextmanager
    def logged_in(self, name: str) -> Iterator[httpx.Client]:
        """A browser in which `name` has logged in to the Hub."""
        with httpx.Client(base_url=self.url, timeout=60, follow_redirects=True) as browser:
            browser.get(f"{self.root}hub/login")
            form = {"username": name, "password": PASSWORD, "_xsrf": browser.cookies["_xsrf"]}
            assert browser.post(f"{self.root}hub/login", data=form).status_code == 200
            yield browser


def configuration(folder: Path, port: int) -> str:
    node, proxy = node_package(*PROXY)
    command = [node, str(proxy / "node_modules" / ".bin" / PROXY[0])]
    environment = {
        "PYTHONPATH": str(python_packages(*HUB)),
        "XINFER_HOME": str(folder / "xinfer"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
    }
    return f"""
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/lab/"
c.JupyterHub.hub_port = {free_port()}
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "{PASSWORD}"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.cmd = {[sys.executable, "-m", "jupyterhub.singleuser"]!r}
c.Spawner.args = ["--allow-root", "--ServerApp.jpserver_extensions=jupyter_xinfer=True"]
c.Spawner.environment = {environment!r}
c.Spawner.notebook_dir = "{folder}/work"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
c.ConfigurableHTTPProxy.command = {command!r}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{free_port()}"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.JupyterHub.services = [{{"name": "tests", "api_token": "{TOKEN}"}}]
c.JupyterHub.load_roles = [
    {{"name": "tests", "services": ["tests"], "scopes": ["admin:users", "admin:servers", "access:servers"]}}
]
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder, port = tmp_path_factory.mktemp("hub"), free_port()
    (folder / "work").mkdir()
    written = folder / "jupyterhub_config.py"
    written.write_text(configuration(folder, port))
    found = Hub(f"http://127.0.0.1:{port}/lab/", folder / "xinfer", folder / "hub.log")
    env = {**os.environ, "PYTHONPATH": str(python_packages(*HUB))}
    for name in [name for name in env if name.startswith(("XINFER_", "JUPYTER_", "JPY_", "JUPYTERHUB_"))]:
        del env[name]
    with found.log.open("wb") as output:
        command = [sys.executable, "-m", "jupyterhub", "-f", str(written)]
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        start_server_of_ann(found, process)
        yield found
    finally:
        stop(process)


def start_server_of_ann(hub: Hub, process: "subprocess.Popen[bytes]") -> None:
    api = httpx.Client(base_url=f"{hub.root}hub/api/", headers={"Authorization": f"token {TOKEN}"}, timeout=60)
    deadline = time.monotonic() + 200

    def wait() -> None:
        assert process.poll() is None, hub.log.read_text()[-4000:]
        assert time.monotonic() < deadline, hub.log.read_text()[-4000:]
        time.sleep(0.2)

    with api, hub.client(TOKEN) as http:
        while not answers(api, "users"):
            wait()
        assert api.post("users/ann").status_code == 201
        assert api.post("users/bob").status_code == 201
        assert api.post("users/ann/server").status_code in (201, 202)
        while not answers(http, "health"):
            wait()
        launched = http.post("v1/models", json={"model_name": "xinfer-demo"})
        assert launched.status_code == 200, launched.text


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def stop(process: "subprocess.Popen[bytes]") -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=30)
    for left in alive:
        left.kill()
    assert not alive


def test_a_token_of_the_hub_opens_the_server_of_its_user(hub: Hub) -> None:
    with hub.client(TOKEN) as http:
        assert http.get("v1/models").json()["data"][0]["id"] == "xinfer-demo"
        assert http.post("v1/chat/completions", json=QUESTION).status_code == 200
        told = http.get("xinfer/info").json()
        described = http.get("openapi.json").json()

    assert told["base_url"] == "/lab/user/ann/"
    assert described["servers"] == [{"url": "/lab/user/ann"}]


@pytest.mark.parametrize("token", [None, "0" * 32, "sk-xinfer-wrong"])
def test_strangers_are_told_in_json_and_not_sent_to_a_login(hub: Hub, token: str | None) -> None:
    with hub.client(token) as http:
        answer = http.get("v1/models")

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "authentication_required"


def test_openais_client_streams_through_the_hubs_proxy(hub: Hub) -> None:
    with openai.OpenAI(base_url=f"{hub.url}v1", api_key=TOKEN, max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
        stream = client.chat.completions.create(model="xinfer-demo", messages=messages, temperature=0, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert "Paris" in text


def test_the_key_of_the_servers_kernels_is_not_shown_to_the_hub(hub: Hub) -> None:
    [runtime] = (hub.home.parent / "runtime").glob("xinfer-*.json")
    key = json.loads(runtime.read_text())["key"]
    with hub.client(key) as http:
        ours = http.get("v1/models")
        jupyters = http.get("api/kernels")

    assert ours.status_code == 200
    assert "set-cookie" not in ours.headers
    assert jupyters.status_code in (302, 403)
    assert key not in hub.log.read_text()


def test_the_users_browser_reads_and_writes_with_the_xsrf_token(hub: Hub) -> None:
    with hub.logged_in("ann") as browser:
        page = browser.get("tree")
        xsrf = re.search(r'"xsrfToken": *"([^"]+)"', page.text)
        cookies = {cookie.name: cookie.value for cookie in browser.cookies.jar if cookie.path == "/lab/user/ann/"}
        token = xsrf[1] if xsrf else cookies["_xsrf"]
        assert browser.get("v1/models").status_code == 200
        # The Hub's check of the XSRF token makes nobody of whom has none.
        assert browser.post("v1/chat/completions", json=QUESTION).status_code == 401
        allowed = browser.post("v1/chat/completions", json=QUESTION, headers={"X-XSRFToken": token or ""})
        dashboard = browser.get(urljoin(hub.url, browser.get("xinfer/info").json()["dashboard"]))

    assert allowed.status_code == 200, allowed.text
    assert dashboard.status_code == 200


def test_another_user_of_the_hub_does_not_get_in(hub: Hub) -> None:
    with hub.logged_in("bob") as browser:
        browser.get("tree")
        answer = browser.get("v1/models", follow_redirects=False)

    assert answer.status_code in (401, 403)
    assert "data" not in answer.json()


async def test_websockets_pass(hub: Hub) -> None:
    for path in ("api/events/subscribe", "xinfer/dask/status/ws"):
        url = f"{hub.url.replace('http', 'ws')}{path}"
        socket = await websocket_connect(HTTPRequest(url, headers={"Authorization": f"token {TOKEN}"}))
        assert socket.protocol is not None
        await closed(socket)
