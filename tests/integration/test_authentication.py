"""Nobody gets in without a credential, on any route; each credential opens what it should."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from jupyter_xinfer.handlers.routes import routes

EXAMPLES = {
    "/v1/models/([A-Za-z0-9._-]+)": "v1/models/xinfer-demo",
    "/v1/models/([A-Za-z0-9._-]+)/progress": "v1/models/xinfer-demo/progress",
    "/v1/models/([A-Za-z0-9._-]+)/events": "v1/models/xinfer-demo/events",
    "/v1/model_registrations/([A-Za-z0-9._-]+)": "v1/model_registrations/LLM",
    "/xinfer/dask/(.*/ws)": "xinfer/dask/status/ws",
    "/xinfer/dask/(.*)": "xinfer/dask/status",
    "/v1/(.*)": "v1/nowhere",
    "/xinfer/(.*)": "xinfer/nowhere",
}
ROUTES = [EXAMPLES.get(pattern, pattern.removeprefix("/")) for pattern, _, _ in routes(Mock())]
PUBLIC_ROUTES = {"health", "v1/cluster/auth"}
PROTECTED = [route for route in ROUTES if route not in PUBLIC_ROUTES]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("route", PROTECTED)
def test_no_route_answers_without_a_credential(xinfer_server: Any, route: str, method: str) -> None:
    answer = httpx.request(method, xinfer_server.url + route, json={}, follow_redirects=False)

    # 302 is Jupyter's own redirect of a browser to its login page (the dashboard); 405 a verb that no handler has.
    assert answer.status_code in (401, 302, 403, 405), answer.text
    if answer.status_code == 302:
        assert "/login" in answer.headers["location"]
    if answer.status_code == 401:
        assert answer.json()["error"]["code"] == "authentication_required"
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("credential", ["Bearer wrong", "token wrong", "Bearer sk-xinfer-wrong", "Basic eDp5"])
def test_a_wrong_credential_is_refused(xinfer_server: Any, credential: str) -> None:
    answer = httpx.get(xinfer_server.url + "v1/models", headers={"Authorization": credential})

    assert answer.status_code == 401


def test_health_says_ok_to_everybody_and_nothing_else(xinfer_server: Any) -> None:
    answer = httpx.get(xinfer_server.url + "health")

    assert answer.json() == {"status": "ok"}
    assert "set-cookie" not in answer.headers


def test_whoever_asks_is_told_that_a_credential_is_needed(xinfer_server: Any) -> None:
    answer = httpx.get(xinfer_server.url + "v1/cluster/auth", headers={"Authorization": "Bearer sk-whatever"})

    assert answer.status_code == 200
    assert answer.json() == {"auth": True}


def test_a_key_in_the_query_is_refused_before_jupyter_sees_it(xinfer_server: Any) -> None:
    answer = httpx.get(xinfer_server.url + f"v1/models?token={runtime_facts(xinfer_server)['key']}")

    assert answer.status_code == 401
    assert "header" in answer.json()["detail"]


def runtime_facts(server: Any) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path(server.env["XINFER_RUNTIME_FILE"]).read_text())
    return facts


def test_the_runtime_key_opens_our_routes_and_none_of_jupyters(xinfer_server: Any) -> None:
    headers = {"Authorization": f"Bearer {runtime_facts(xinfer_server)['key']}"}

    ours = httpx.get(xinfer_server.url + "v1/models", headers=headers)
    jupyters = httpx.get(xinfer_server.url + "api/kernels", headers=headers)

    assert ours.status_code == 200
    assert "set-cookie" not in ours.headers
    assert jupyters.status_code == 403


def test_the_runtime_key_needs_the_right_host_name(xinfer_server: Any) -> None:
    key = runtime_facts(xinfer_server)["key"]

    answer = httpx.get(
        xinfer_server.url + "v1/models", headers={"Authorization": f"Bearer {key}", "Host": "attacker.example"}
    )

    assert answer.status_code == 403


def test_a_browsers_cookie_reads_but_writes_only_with_the_xsrf_token(xinfer_server: Any) -> None:
    with httpx.Client(base_url=xinfer_server.url, follow_redirects=True) as browser:
        browser.get(f"tree?token={xinfer_server.token}")
        browser.get("login")
        question = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}
        assert browser.get("v1/models").status_code == 200
        assert browser.post("v1/chat/completions", json=question).status_code == 403
        xsrf = {"X-XSRFToken": browser.cookies["_xsrf"]}
        assert browser.post("v1/chat/completions", json=question, headers=xsrf).status_code == 200


def test_an_unknown_route_answers_json(xinfer_server: Any) -> None:
    with xinfer_server.client() as http:
        answer = http.get("v1/nowhere")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
