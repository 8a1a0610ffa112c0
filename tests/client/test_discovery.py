import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xinfer_runtime.client import discovery
from xinfer_runtime.client.discovery import discover, process_alive
from xinfer_runtime.client.endpoint import Endpoint
from xinfer_runtime.client.errors import ServerNotFound

Find = Callable[..., Endpoint]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """`discover` with this environment, in a runtime directory of its own where every process lives."""

    def run(*arguments: str, alive: set[int] | None = None, **environ: str) -> Endpoint:
        lives = (lambda pid: True) if alive is None else alive.__contains__
        return discover(*arguments, environ=environ, directory=lambda: tmp_path, alive=lives)

    return run


def write(folder: Path, pid: int, url: str, key: str = "key") -> Path:
    path = folder / f"xinfer-{pid}.json"
    path.write_text(json.dumps({"url": url, "key": key, "pid": pid, "version": "1", "verify": True}))
    return path


def test_an_explicit_address_comes_first(find: Find, tmp_path: Path) -> None:
    found = find("http://explicit/", "k", XINFER_BASE_URL="http://env/", XINFER_API_KEY="env-key")
    assert (found.url, found.key) == ("http://explicit/", "k")


def test_the_environment_comes_before_the_runtime_file(find: Find, tmp_path: Path) -> None:
    file = write(tmp_path, 1, "http://file/")
    found = find(XINFER_BASE_URL="http://env/", XINFER_API_KEY="k", XINFER_RUNTIME_FILE=str(file))
    assert (found.url, found.key) == ("http://env/", "k")


def test_a_kernel_finds_its_server_by_the_runtime_file(find: Find, tmp_path: Path) -> None:
    write(tmp_path, 1, "http://other/")
    file = write(tmp_path, 2, "http://own/user/x/", "own")
    found = find(XINFER_BASE_URL="http://own/user/x/", XINFER_RUNTIME_FILE=str(file))
    assert (found.url, found.key) == ("http://own/user/x/", "own")


def test_the_parent_process_is_chosen_among_several_servers(find: Find, tmp_path: Path) -> None:
    write(tmp_path, 1, "http://one/")
    write(tmp_path, 2, "http://two/")
    assert find(JPY_PARENT_PID="2").url == "http://two/"


def test_the_only_live_server_is_chosen(find: Find, tmp_path: Path) -> None:
    write(tmp_path, 1, "http://dead/")
    write(tmp_path, 2, "http://alive/")
    assert find(alive={2}).url == "http://alive/"


def test_several_servers_are_named_and_none_is_chosen(find: Find, tmp_path: Path) -> None:
    write(tmp_path, 1, "http://one/")
    write(tmp_path, 2, "http://two/")
    with pytest.raises(ServerNotFound, match="several, choose one: http://one/, http://two/"):
        find()


def test_under_jupyterhub_its_service_url_is_used(find: Find) -> None:
    found = find(JUPYTERHUB_SERVICE_URL="http://0.0.0.0:8888/user/x/", JUPYTERHUB_API_TOKEN="hub")
    assert (found.url, found.key) == ("http://127.0.0.1:8888/user/x/", "hub")


def test_the_error_lists_what_was_tried(find: Find) -> None:
    with pytest.raises(ServerNotFound) as caught:
        find(XINFER_RUNTIME_FILE="/nowhere/xinfer-1.json")
    for tried in ("XINFER_BASE_URL", "/nowhere/xinfer-1.json does not exist", "none is running", "JUPYTERHUB"):
        assert tried in str(caught.value)


def test_a_found_key_is_not_sent_to_another_address(find: Find, tmp_path: Path) -> None:
    file = write(tmp_path, 1, "http://own/")
    assert find("http://elsewhere/", XINFER_RUNTIME_FILE=str(file)).key is None


def test_the_key_of_the_named_server_is_found(find: Find, tmp_path: Path) -> None:
    write(tmp_path, 1, "http://one/", "k1")
    write(tmp_path, 2, "http://two/", "k2")
    assert find("http://two").key == "k2"


def test_the_key_for_an_explicit_address_may_come_from_the_environment(find: Find) -> None:
    assert find("http://elsewhere/", XINFER_API_KEY="k").key == "k"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"url": 1, "key": "k", "pid": 1}', '{"url": "ftp://x", "pid": 1}']
)
def test_a_broken_runtime_file_is_passed_over(find: Find, tmp_path: Path, content: str) -> None:
    (tmp_path / "xinfer-9.json").write_text(content)
    write(tmp_path, 1, "http://good/")
    assert find().url == "http://good/"


def test_a_file_of_another_user_is_not_trusted(find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, "http://trap/")
    monkeypatch.setattr(discovery.os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    with pytest.raises(ServerNotFound):
        find()


def test_this_process_is_alive() -> None:
    assert process_alive(os.getpid())


def test_a_process_that_ended_is_not_alive() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert not process_alive(pid)
