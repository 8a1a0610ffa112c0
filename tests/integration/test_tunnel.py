"""A Jupyter server that reaches the supervisor, and not the node: machines are network namespaces."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.chaos.network import Machine, permitted
from tests.conftest import XinferServer, start_server
from tests.integration.test_supervisor import SCRIPT

NOT_PERMITTED = permitted()
pytestmark = pytest.mark.skipif(bool(NOT_PERMITTED), reason=NOT_PERMITTED or "permitted")


def begin(stack: ExitStack, machine: Machine | None, home: Path, *arguments: str) -> "subprocess.Popen[str]":
    prefix = machine.prefix if machine is not None else ()
    with home.with_suffix(".log").open("ab") as log:
        process = stack.enter_context(
            subprocess.Popen(
                [*prefix, SCRIPT, *arguments],
                env={"XINFER_HOME": str(home), "PATH": "/usr/sbin:/usr/bin:/bin"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        )
    stack.callback(process.terminate)
    return process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    folder = tmp_path_factory.mktemp("tunnel")
    home = folder / "jupyter" / "xinfer"
    node, office = Machine(1), Machine(2)
    with ExitStack() as stack:
        for machine in (node, office):
            machine.create()
            stack.callback(machine.delete)
        office.block(node.there)
        options = ("--host", node.here, "--port", "0", "--join-port", "0")
        home.parent.mkdir()
        supervisor = begin(stack, None, home, "supervisor", *options)
        assert supervisor.stdout is not None
        address = supervisor.stdout.readline().split("at ")[1].split(";")[0]
        token = subprocess.run(
            [SCRIPT, "join-token"], env={"XINFER_HOME": str(home)}, capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        begin(stack, node, folder / "node", "worker", "--join", token)
        server = start_server(folder / "jupyter", f"--scheduler={address}", machine=office)
        stack.callback(server.stop)
        server.launch(model_name="xinfer-demo")
        yield server


def test_the_node_is_out_of_reach(server: XinferServer) -> None:
    with server.client() as http:
        address = http.get("v1/models/xinfer-demo").json()["replicas"][0]["address"]
    assert address
    office = Machine(2)
    host, _, port = address.rpartition(":")
    reached = subprocess.run(
        [*office.prefix, "/bin/bash", "-c", f"</dev/tcp/{host}/{port}"], capture_output=True, check=False
    )
    assert reached.returncode != 0


def test_answers_come_through_the_scheduler(server: XinferServer) -> None:
    question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Please count to 100."}]}
    with server.client() as http:
        answer = http.post("v1/chat/completions", json=question | {"temperature": 0, "max_tokens": 600})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"].startswith("1, 2, 3, 4, 5")


def test_the_dashboard_of_the_scheduler_is_shown_through_it(server: XinferServer) -> None:
    with server.client() as http:
        page = http.get("xinfer/dask/status")
        assert (page.status_code, "Dask" in page.text) == (200, True), page.text[:500]
        models = http.get("xinfer/dask/xinfer")
        assert models.status_code == 200
    assert "Bokeh" in models.text


def test_its_websocket_comes_through_too(server: XinferServer) -> None:
    office = Machine(2)
    with server.client() as http:
        page = http.get("xinfer/dask/xinfer").text
    token = re.search(r'"token":"([^"]+)"', page)
    assert token is not None
    client = (
        "import asyncio, sys\n"
        "from tornado.httpclient import HTTPRequest\n"
        "from tornado.websocket import websocket_connect\n"
        "async def main():\n"
        "    url, token, bokeh = sys.argv[1:]\n"
        "    request = HTTPRequest(url, headers={'Authorization': 'token ' + token})\n"
        "    socket = await websocket_connect(request, subprotocols=['bokeh', bokeh])\n"
        "    print(await socket.read_message())\n"
        "asyncio.run(main())"
    )
    url = f"{server.url.replace('http', 'ws', 1)}xinfer/dask/xinfer/ws"
    heard = subprocess.run(
        [*office.prefix, sys.executable, "-c", client, url, server.token, token[1]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ACK" in heard.stdout, heard.stderr


def test_a_dead_replica_is_noticed_through_the_tunnel_and_its_successor_is_used(server: XinferServer) -> None:
    with server.client() as http:
        pid = http.get("v1/models/xinfer-demo").json()["replicas"][0]["pid"]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "What is 2 + 3?"}]}
        answer = http.post("v1/chat/completions", json=question | {"temperature": 0})
    assert answer.status_code == 200, answer.text
    assert "5" in answer.json()["choices"][0]["message"]["content"]
