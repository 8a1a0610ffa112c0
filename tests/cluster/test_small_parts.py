"""The parts of the cluster that are a few functions each."""

import os
import ssl
import stat
import sys
from pathlib import Path

import msgspec
import pytest
from tests.cluster.conftest import spec

from jupyter_xinfer.restart_delays import HEALTHY_SECONDS, RestartDelays
from xinfer_runtime.cluster.bounded_log import BoundedLog, prune
from xinfer_runtime.cluster.child_process import child_command, child_environment
from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.desired_table import Desired, DesiredTable
from xinfer_runtime.cluster.model_table import ModelTable, OutOfStepError
from xinfer_runtime.cluster.protocol import Beat, Change, Snapshot
from xinfer_runtime.cluster.session import ClusterSession
from xinfer_runtime.errors import ClusterUnavailable
from xinfer_runtime.models import ModelStatus


def test_credentials_leave_no_file_and_show_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    credentials = TlsCredentials.create()
    assert credentials.server_context().verify_mode is ssl.CERT_REQUIRED
    assert credentials.client_context().verify_mode is ssl.CERT_REQUIRED
    assert list(tmp_path.iterdir()) == []
    assert "PRIVATE" not in repr(credentials)


def test_credentials_come_from_files(tmp_path: Path) -> None:
    credentials = TlsCredentials.create()
    paths = [tmp_path / name for name in ("ca", "cert", "key")]
    for path, text in zip(paths, (credentials.ca, credentials.cert, credentials.key), strict=True):
        path.write_text(text)
    assert TlsCredentials.from_files(*paths) == credentials


def test_dask_gets_the_same_credentials_and_no_way_around_them() -> None:
    credentials = TlsCredentials.create()
    security = credentials.security()
    assert security.require_encryption is True
    for role in ("client", "scheduler", "worker"):
        assert security.get_tls_config_for_role(role) == {
            "ca_file": credentials.ca,
            "cert": credentials.cert,
            "key": credentials.key,
            "ciphers": None,
        }


def test_children_get_no_secrets_and_no_thread_limits() -> None:
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "JUPYTERHUB_API_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "https_proxy": "http://user:password@proxy",
        "OMP_NUM_THREADS": "1",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "LLAMA_API_KEY": "x",
    }
    child = child_environment(environ, XINFER_HOME="/home")
    child.pop("PYTHONPATH", None)
    assert child == {"PATH": "/bin", "LC_ALL": "C", "XINFER_HOME": "/home"}


def test_a_child_does_not_import_from_the_current_folder() -> None:
    assert child_command("a.module") == (sys.executable, "-P", "-m", "a.module")


def test_a_log_is_bounded_and_private(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "logs" / "a.log", limit=100)
    for _ in range(50):
        log.append(b"x" * 30)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "logs").iterdir()}
    assert set(sizes) <= {"a.log", "a.log.1"}
    assert max(sizes.values()) <= 130
    assert stat.S_IMODE((tmp_path / "logs" / "a.log.1").stat().st_mode) == 0o600


def test_logs_that_nobody_writes_any_more_are_pruned(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"replica-m-{number}.log"
        path.touch()
        os.utime(path, (number, number))
    (tmp_path / "cluster.log").touch()
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster.log", "replica-m-3.log", "replica-m-4.log"]
    prune(tmp_path / "nowhere", keep=2)


def test_a_local_cluster_that_lived_well_is_started_again_at_once() -> None:
    delays = RestartDelays()
    assert [delays.after(lived) for lived in (5.0, 5.0, 0.0)] == [0.0, 1.0, 2.0]
    assert [delays.after(1.0) for _ in range(5)][-1] == 30.0
    assert [delays.after(lived) for lived in (HEALTHY_SECONDS, 5.0)] == [0.0, 1.0]


def test_the_desired_table_comes_back(tmp_path: Path) -> None:
    table = DesiredTable(tmp_path)
    assert table.load() == Desired(nodes=())
    table.save(Desired(models=(spec("one"), spec("two", context_length=7))))
    desired = Desired(models=(spec("two", context_length=7),), nodes=("a", "b"))
    table.save(desired)
    assert DesiredTable(tmp_path).load() == desired
    assert [path.name for path in table.path.parent.iterdir()] == ["desired.json"]


def test_the_desired_table_has_one_owner(tmp_path: Path) -> None:
    first, second = DesiredTable(tmp_path), DesiredTable(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_a_table_that_cannot_be_read_is_kept_aside(tmp_path: Path) -> None:
    table = DesiredTable(tmp_path)
    table.save(Desired())
    table.path.write_text("{not json")
    with pytest.raises(msgspec.DecodeError):
        table.load()
    assert table.set_aside().read_text() == "{not json"
    assert table.load().models == ()


def status(uid: str) -> ModelStatus:
    return ModelStatus(spec=spec(uid))


def test_a_gateways_table_follows_its_watch() -> None:
    table = ModelTable()
    assert sorted(table.apply(Snapshot(epoch="e", revision=4, models=(status("a"), status("b"))))) == ["a", "b"]
    assert table.apply(Change(revision=5, uid="c", status=status("c"))) == ["c"]
    assert table.apply(Change(revision=6, uid="a", status=None)) == ["a"]
    assert table.apply(Beat(revision=6)) == []
    assert list(table.models) == ["b", "c"]


def test_a_new_snapshot_names_what_is_different() -> None:
    table = ModelTable()
    table.apply(Snapshot(epoch="e", revision=4, models=(status("a"), status("b"))))
    assert sorted(table.apply(Snapshot(epoch="f", revision=0, models=(status("b"), status("c"))))) == ["a", "c"]


@pytest.mark.parametrize("message", [Change(revision=6, uid="c", status=None), Beat(revision=5)])
def test_a_missed_message_is_noticed(message: Change | Beat) -> None:
    table = ModelTable()
    table.apply(Snapshot(epoch="e", revision=4, models=()))
    with pytest.raises(OutOfStepError):
        table.apply(message)


def test_a_cluster_without_tls_is_refused() -> None:
    with pytest.raises(ClusterUnavailable, match="not tls://"):
        ClusterSession("tcp://127.0.0.1:8786", TlsCredentials.create())
