"""A Jupyter server on a Dask cluster that somebody else runs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.conftest import XinferServer, start_server

from xinfer_runtime.cluster.credentials import TlsCredentials

PROGRAM = Path(__file__).parents[1] / "cluster" / "their_cluster.py"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[XinferServer]:
    credentials = TlsCredentials.create()
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        cluster.stdin.write(msgspec.json.encode(credentials) + b"\n")
        cluster.stdin.flush()
        address = cluster.stdout.readline().decode().strip()
        options = [f"--scheduler={address}"]
        for name in ("ca", "cert", "key"):
            path = tmp_path / f"{name}.pem"
            path.write_text(getattr(credentials, name))
            options.append(f"--XinferApp.tls_{name}_file={path}")
        server = start_server(tmp_path / "jupyter", *options)
        yield server
        server.stop()
        cluster.stdin.close()
        cluster.wait(30)


def test_models_run_on_the_configured_cluster_and_its_dashboard_is_linked(server: XinferServer) -> None:
    server.launch(model_name="xinfer-demo")
    question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0}
    with server.client() as http:
        answer = http.post("v1/chat/completions", json=question).json()
        info = http.get("xinfer/info").json()
        dashboard = http.get("xinfer/dask/status")
        started = [" ".join(process.cmdline()) for process in server.processes()]

    assert "5" in answer["choices"][0]["message"]["content"]
    assert info["cluster"]["state"] == "running"
    assert dashboard.status_code == 200
    assert not [command for command in started if "local_main" in command]
