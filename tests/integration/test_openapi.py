"""The description of the API, as the server gives it."""

from typing import Any

import httpx


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
