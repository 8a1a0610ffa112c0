"""Files of the server that are broken, missing or in the way: answers say what failed, and not where."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import XinferServer, start_server

from jupyter_xinfer.auth.key_store import KeyStore

NO_DATABASE = b"this is no database, " * 100
QUESTION = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[XinferServer]:
    folder = tmp_path_factory.mktemp("broken")
    ledger = folder / "xinfer" / "usage" / "usage.sqlite"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(NO_DATABASE)
    running = start_server(folder)
    try:
        running.launch(model_name="xinfer-demo")
        yield running
    finally:
        running.stop()


def tells_no_path(answer: httpx.Response, server: XinferServer) -> None:
    text = answer.text + str(answer.headers)
    for part in (str(server.home), str(server.home.parent.parent), sys.prefix, ".sqlite", "Traceback", 'File \\"'):
        assert part not in text


def in_the_way(path: Path) -> Path:
    """A file where a folder is needed: nobody can write below it, root included."""
    path.write_text("not a folder")
    return path


def test_with_a_broken_ledger_the_server_starts_and_serves(server: XinferServer) -> None:
    with server.client() as http:
        answer = http.post("v1/chat/completions", json=QUESTION)

    assert answer.status_code == 200, answer.text
    assert str(server.home / "usage" / "usage.sqlite") in server.log.read_text()


def test_a_broken_key_store_refuses_keys_and_tells_strangers_nothing(server: XinferServer) -> None:
    store = KeyStore(server.home)
    store.create(name="one", owner="tests", permissions=frozenset())
    kept = store.path.read_bytes()
    store.path.write_bytes(NO_DATABASE)
    try:
        answer = httpx.get(f"{server.url}v1/models", headers={"Authorization": "Bearer sk-xinfer-of-a-stranger"})
        messages = httpx.post(f"{server.url}v1/messages", headers={"X-Api-Key": "sk-xinfer-of-a-stranger"}, json={})
    finally:
        store.path.write_bytes(kept)

    for each in (answer, messages):
        assert each.status_code == 503
        tells_no_path(each, server)
    assert "key store" in answer.json()["detail"]
    assert str(store.path) in server.log.read_text()
    with server.client() as http:
        assert http.get("v1/models").status_code == 200


def test_registrations_that_cannot_be_kept_are_refused(server: XinferServer) -> None:
    definition = {
        "model_name": "kept",
        "model_lang": ["en"],
        "model_ability": ["chat"],
        "model_specs": [
            {
                "model_format": "ggufv2",
                "model_size_in_billions": 1,
                "quantizations": ["Q4_0"],
                "model_uri": str(server.home / "nowhere" / "kept.gguf"),
            }
        ],
    }
    body: dict[str, Any] = {"model": json.dumps(definition), "persist": True}
    blocked = in_the_way(server.home / "registrations")
    with server.client() as http:
        refused = http.post("v1/model_registrations/LLM", json=body)
        blocked.unlink()
        accepted = http.post("v1/model_registrations/LLM", json=body)
        missing = http.post("v1/models", json={"model_name": "kept"})

    assert refused.status_code == 503, refused.text
    assert accepted.status_code == 200, accepted.text
    assert missing.status_code == 400, missing.text
    assert "kept.gguf" in missing.json()["detail"]
    for each in (refused, missing):
        tells_no_path(each, server)


def test_downloads_that_cannot_be_written_are_refused(server: XinferServer) -> None:
    blocked = in_the_way(server.home / "models")
    with server.client() as http:
        answers = [
            http.post("v1/models", json={"model_name": "a", "model_path": "hf://owner/model/a.gguf"}),
            http.get("v1/cache/models"),
            http.delete("v1/cache/models", params={"model_version": "huggingface://owner/model@main/a.gguf"}),
        ]
    blocked.unlink()

    assert [each.status_code for each in answers] == [503, 200, 404], [each.text for each in answers]
    assert "cannot be written" in answers[0].json()["detail"]
    for each in (answers[0], answers[2]):
        tells_no_path(each, server)
    assert str(blocked) in (server.home / "logs" / "cluster.log").read_text()


def test_a_file_that_is_no_model_is_refused_as_it_was_named(server: XinferServer) -> None:
    broken = server.home / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)
    with server.client() as http:
        answers = [
            http.post("v1/models", json={"model_name": "a", "model_path": str(path)})
            for path in (broken, server.home / "nowhere.gguf")
        ]

    for each, name in zip(answers, ("broken.gguf", "nowhere.gguf"), strict=True):
        assert each.status_code == 400, each.text
        # The path is the caller's own here.
        assert str(server.home / name) in each.json()["detail"]
        assert "Traceback" not in each.text


def test_the_log_has_no_stack_of_all_this(server: XinferServer) -> None:
    assert "Traceback" not in server.log.read_text()
