"""The description of the API, as the server gives it."""

from typing import Any

import httpx
import pytest


def test_the_document_and_its_page_are_served_to_callers_only(xinfer_server: Any) -> None:
    with xinfer_server.client() as http:
        described = http.get("openapi.json").json()
        page = http.get("xinfer/api")
    # Without the cookies of the client above.
    stranger = httpx.get(f"{xinfer_server.url}openapi.json", headers={"Authorization": "Bearer wrong"})

    assert described["servers"] == [{"url": "/user/test"}]
    assert page.headers["Content-Type"].startswith("text/html")
    assert "/v1/chat/completions" in page.text
    assert stranger.status_code in (401, 403)


@pytest.mark.parametrize("path", ["v1/embeddings", "v1/rerank", "v1/audio/speech", "v1/images/generations"])
def test_an_ability_that_no_model_has_is_told(xinfer_server: Any, path: str) -> None:
    with xinfer_server.client() as http:
        named = http.post(path, json={"model": "xinfer-demo"})
        unnamed = http.post(path, json={})

    assert (named.status_code, named.json()["error"]["param"]) == (400, "model")
    assert unnamed.status_code == 404
    assert "ability" in unnamed.json()["detail"]
