"""Launches with a draft model over HTTP: the answers are those without, and what cannot be is said at the launch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bench.engine.rewrite_gguf import deeper

import xinfer_runtime.catalog

DEMO = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"
UID = "with-a-draft-model"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is slower than the demo model and says the same."""
    return deeper(DEMO, tmp_path_factory.mktemp("models") / "deep.gguf", 60)


@pytest.fixture
def http(xinfer_server: Any) -> Iterator[httpx.Client]:
    with xinfer_server.client() as client:
        yield client


def test_a_registered_model_guesses_for_a_file(xinfer_server: Any, http: httpx.Client, large: Path) -> None:
    plain = xinfer_server.launch(model_path=str(large), model_uid="without", max_sequences=4)
    model = xinfer_server.launch(
        model_path=str(large), model_uid=UID, max_sequences=4, draft_model="xinfer-demo", draft_tokens=4
    )
    texts = {}
    for uid in (plain, model):
        body = {"model": uid, "temperature": 0, "messages": [{"role": "user", "content": "Please count to 60."}]}
        answer = http.post("v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        texts[uid] = answer.json()["choices"][0]["message"]["content"]
    assert "59, 60" in texts[plain]
    assert texts[model] == texts[plain]
    described = {uid: http.get(f"v1/models/{uid}").json() for uid in texts}
    replica = described[model]["replicas"][0]
    assert 0 < replica["accepted_tokens"] <= replica["drafted_tokens"]
    assert replica["step_seconds"] > 0
    assert described[plain]["replicas"][0]["drafted_tokens"] == 0
    assert described[model]["memory_bytes"] > described[plain]["memory_bytes"] + DEMO.stat().st_size
    for uid in texts:
        http.delete(f"v1/models/{uid}")


def test_a_draft_model_that_cannot_be_is_refused_at_the_launch(http: httpx.Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    for draft, says in (
        (str(broken), "broken.gguf"),
        ("/nowhere/small.gguf", "does not exist"),
        ("unknown", "Unknown"),
    ):
        answer = http.post("v1/models", json={"model_name": "xinfer-demo", "model_uid": "never", "draft_model": draft})
        assert answer.status_code in (400, 404)
        assert answer.json()["error"]["param"] == "draft_model"
        assert says in answer.json()["error"]["message"]
