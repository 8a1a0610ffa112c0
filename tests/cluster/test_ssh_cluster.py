"""The recipe for Dask's SSHCluster, with a sshd of the test's own on loopback."""

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from tests.chaos.processes import below
from tests.conftest import free_port

from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.cluster.child_process import child_environment
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.models import LaunchRequest

PROGRAM = Path(__file__).with_name("ssh_cluster.py")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
UID = "xinfer-demo"
pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="there is no sshd: apt-get install openssh-server"),
    pytest.mark.skipif(importlib.util.find_spec("asyncssh") is None, reason="asyncssh is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a sshd needs root"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[int]:
    """A sshd that lets in whoever has `tmp_path/user`, on the returned port."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    port = free_port()
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPidFile {tmp_path}/pid\n"
    )
    # Where it keeps nothing; it refuses to start without.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    assert SSHD is not None
    with (
        (tmp_path / "sshd.log").open("wb") as log,
        subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log) as server,
    ):
        yield port
        server.terminate()


@pytest.fixture
async def session(tmp_path: Path, sshd: int) -> AsyncIterator[ClusterSession]:
    credentials = TlsCredentials.create()
    folder = tmp_path / "cluster"
    folder.mkdir()
    for part in ("ca", "cert", "key"):
        (folder / f"{part}.pem").write_text(getattr(credentials, part))
    environment = child_environment(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), str(sshd), str(tmp_path / "user"), str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    address = (await asyncio.wait_for(program.stdout.readline(), 120)).decode().strip()
    session = ClusterSession(address, credentials)
    await session.connect(60)
    yield session
    await session.close()
    program.stdin.close()
    await asyncio.wait_for(program.wait(), 60)


async def test_models_run_on_a_cluster_over_ssh_and_leave_nothing(session: ClusterSession, tmp_path: Path) -> None:
    await session.launch(resolve(LaunchRequest(model_name=UID)))
    status = await session.wait_until(UID, lambda model: model is not None and model.state == "ready", 120)
    assert status is not None
    pid = status.replicas[0].pid
    assert pid in {process.pid for process in below(tmp_path)}
    await session.terminate(UID)
    assert not psutil.pid_exists(pid)
