"""Models that come from a hub, here one on loopback that speaks as Hugging Face's does."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.catalog.fake_hub import FakeHub, fake_hub
from tests.conftest import XinferServer, start_server

import xinfer_runtime.catalog
from jupyter_xinfer.auth.key_store import KeyStore

CONTENT = (Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf").read_bytes()


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as running:
        running.add("me/demo-GGUF/one.gguf", CONTENT)
        # Larger than what is fetched to look at its header.
        running.add("me/demo-GGUF/slow.gguf", CONTENT + bytes(12 << 20))
        yield running


@pytest.fixture(scope="module")
def server(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        running = start_server(tmp_path_factory.mktemp("downloads"))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def http(server: XinferServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def until(http: httpx.Client, uid: str, stage: str) -> dict[str, Any]:
    """The progress of the model's replica once it is in that stage."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = http.get(f"v1/models/{uid}/progress").json()
        if answer.get("replicas") and answer["replicas"][0]["stage"] == stage and answer["replicas"][0]["bytes_done"]:
            return dict(answer["replicas"][0])
        time.sleep(0.05)
    pytest.fail(f"{uid} was never {stage}: {answer}")


def test_a_model_of_a_hub_is_downloaded_and_answers(http: httpx.Client, server: XinferServer) -> None:
    launched = http.post("v1/models", json={"model_path": "hf://me/demo-GGUF/one.gguf"})
    assert (launched.status_code, launched.json()["model_uid"]) == (200, "one"), launched.text
    body = {"model": "one", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8}
    assert http.post("v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert http.get("v1/models/one").json()["model_path"] == "hf://me/demo-GGUF/one.gguf"
    assert (server.home / "models/huggingface/me/demo-GGUF/main/one.gguf").read_bytes() == CONTENT
    assert http.delete("v1/models/one").status_code == 200


def test_a_download_is_watched_cancelled_and_goes_on(http: httpx.Client, hub: FakeHub) -> None:
    hub.seconds_per_chunk = 0.1
    body = {"model_path": "hub://me/demo-GGUF/slow.gguf", "download_hub": "huggingface"}
    assert http.post("v1/models?wait_ready=False", json=body).status_code == 200
    progress = until(http, "slow", "downloading")
    assert 0 < progress["progress"] < 1
    assert progress["bytes_total"] == len(CONTENT) + (12 << 20)
    assert progress["seconds"] >= 0
    assert http.get("v1/models/slow").json()["state"] == "downloading"

    assert http.post("v1/models/slow/cancel").status_code == 200
    deadline = time.monotonic() + 30
    while http.get("v1/models/slow").status_code != 404 and time.monotonic() < deadline:
        time.sleep(0.05)
    hub.seconds_per_chunk = 0.0
    hub.asked.clear()
    assert http.post("v1/models", json=body).status_code == 200
    assert hub.asked[0].start >= 4 << 20
    assert http.delete("v1/models/slow").status_code == 200


def test_what_the_hub_does_not_have_is_refused_at_launch(http: httpx.Client) -> None:
    refused = http.post("v1/models", json={"model_path": "hf://me/demo-GGUF/nothing.gguf"})
    assert refused.status_code == 400
    assert "does not exist (HTTP 404)" in refused.json()["detail"]
    assert "Traceback" not in refused.text


@pytest.fixture
def small_disk(server: XinferServer) -> Iterator[Path]:
    """The folder of the downloads is a disk of 24 MiB."""
    folder = server.home / "models"
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a disk here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")
def test_a_disk_that_fills_up_stops_a_download_which_goes_on_when_there_is_room(
    http: httpx.Client, hub: FakeHub, small_disk: Path
) -> None:
    hub.seconds_per_chunk = 0.05
    body = {"model_path": "hf://me/demo-GGUF/slow.gguf", "model_uid": "tight"}
    assert http.post("v1/models?wait_ready=False", json=body).status_code == 200
    until(http, "tight", "downloading")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(12 << 20))

    deadline = time.monotonic() + 60
    while "No space left" not in (text := http.get("v1/models/tight/events").text) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "cannot be written on this node: No space left on device" in text

    hub.seconds_per_chunk = 0.0
    filler.unlink()
    while (state := http.get("v1/models/tight").json()["state"]) != "ready" and time.monotonic() < deadline + 60:
        time.sleep(0.1)
    assert state == "ready"
    assert http.delete("v1/models/tight").status_code == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")
def test_a_file_that_is_larger_than_the_disk_is_refused_at_launch(
    http: httpx.Client, hub: FakeHub, small_disk: Path
) -> None:
    hub.add("me/demo-GGUF/large.gguf", CONTENT + bytes(32 << 20))
    refused = http.post("v1/models", json={"model_path": "hf://me/demo-GGUF/large.gguf"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "does_not_fit")
    assert "GiB more on the node's disk" in refused.json()["detail"]


@pytest.fixture
def stranger(server: XinferServer) -> Iterator[httpx.Client]:
    """A client with a key that may remove files and definitions, and sees another model alone."""
    _, secret = KeyStore(server.home).create(
        name=f"stranger-{secrets.token_hex(4)}",
        owner="tests",
        permissions=frozenset({"models:list", "models:unregister"}),
        models=frozenset({"another"}),
    )
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {secret}"}, timeout=60) as client:
        yield client


@pytest.mark.parametrize("by_path", [False, True])
def test_files_of_a_model_that_the_caller_may_not_see_stay(
    http: httpx.Client, stranger: httpx.Client, server: XinferServer, by_path: bool
) -> None:
    hidden = {"model_path": "hf://me/demo-GGUF/one.gguf", "model_uid": "hidden"}
    assert http.post("v1/models", json=hidden).status_code == 200
    [cached] = http.get("v1/cache/models", params={"model_name": "one"}).json()["list"]
    if by_path:
        assert http.delete("v1/models/hidden").status_code == 200
        assert http.post("v1/models", json={**hidden, "model_path": cached["path"]}).status_code == 200
    refused = stranger.delete("v1/cache/models", params={"model_version": cached["model_version"]})
    assert refused.status_code == 409, refused.text
    assert "hidden" not in refused.text
    assert Path(cached["path"]).exists()
    assert http.delete("v1/models/hidden").status_code == 200


def test_the_definition_of_a_model_that_the_caller_may_not_see_stays(
    http: httpx.Client, stranger: httpx.Client
) -> None:
    specs = [
        {
            "model_format": "ggufv2",
            "model_size_in_billions": 1,
            "quantizations": ["q8_0"],
            "model_uri": str(Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"),
        }
    ]
    definition = {"model_name": "theirs", "model_lang": ["en"], "model_ability": ["chat"], "model_specs": specs}
    assert http.post("v1/model_registrations/LLM", json={"model": json.dumps(definition)}).status_code == 200
    assert http.post("v1/models", json={"model_name": "theirs", "model_uid": "hidden"}).status_code == 200
    refused = stranger.delete("v1/model_registrations/LLM/theirs")
    assert refused.status_code == 409, refused.text
    assert "hidden" not in refused.text
    assert http.delete("v1/models/hidden").status_code == 200
    assert stranger.delete("v1/model_registrations/LLM/theirs").status_code == 200


def test_what_was_downloaded_is_listed_and_removed_unless_it_is_used(http: httpx.Client) -> None:
    body = {"model_path": "hf://me/demo-GGUF/one.gguf"}
    assert http.post("v1/models", json=body).status_code == 200
    [cached] = http.get("v1/cache/models", params={"model_name": "one"}).json()["list"]
    assert cached["size_bytes"] == len(CONTENT)
    version = {"model_version": cached["model_version"]}
    assert http.get("v1/cache/models/files", params=version).json()["paths"] == [cached["path"]]
    assert http.delete("v1/cache/models", params=version).status_code == 409

    assert http.delete("v1/models/one").status_code == 200
    assert http.delete("v1/cache/models", params=version).json() == {"result": True}
    assert not Path(cached["path"]).exists()
    assert http.get("v1/cache/models", params={"model_name": "one"}).json()["list"] == []
    assert http.delete("v1/cache/models", params=version).status_code == 404
