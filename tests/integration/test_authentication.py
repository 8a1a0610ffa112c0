"""Nobody gets in without a credential, on any route; each credential opens what it should."""

import json
import re
import secrets
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from tests.conftest import closed
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketHandler, websocket_connect

from jupyter_xinfer.app import XinferApp
from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.permissions import PERMISSIONS
from jupyter_xinfer.auth.principal import Limits
from jupyter_xinfer.handlers.base import permission_of
from jupyter_xinfer.handlers.routes import routes

EXAMPLES = {"/xinfer/dask/(.*/ws)": "xinfer/dask/status/ws", "/xinfer/dask/(.*)": "xinfer/dask/status"}


def example(pattern: str) -> str:
    return EXAMPLES.get(pattern, re.sub(r"\([^()]*\)", "xinfer-demo", pattern).removeprefix("/"))


ROUTES = list(dict.fromkeys(example(pattern) for pattern, _, _ in routes(Mock())))
VERBS = [
    (method, example(pattern), permission_of(handler, method))
    for pattern, handler, _ in routes(Mock())
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    if permission_of(handler, method) in PERMISSIONS
]
PUBLIC_VERBS = {("GET", "health"), ("GET", "v1/cluster/auth"), ("POST", "token"), ("POST", "v1/auth/refresh")}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("route", ROUTES)
def test_no_route_answers_without_a_credential(xinfer_server: Any, route: str, method: str) -> None:
    answer = httpx.request(method, xinfer_server.url + route, json={}, follow_redirects=False)

    if (method, route) in PUBLIC_VERBS:
        assert answer.status_code in (200, 400)
        return
    # 302 is Jupyter's own redirect of a browser to its login page (the dashboard); 405 a verb that no handler has.
    assert answer.status_code in (401, 302, 403, 405), answer.text
    if answer.status_code == 302:
        assert "/login" in answer.headers["location"]
    if answer.status_code == 401 and method != "HEAD":
        assert answer.json()["error"]["code"] == "authentication_required"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_walk_misses_no_route_that_the_extension_registers() -> None:
    """Whatever it serves, static files included, is in the table that the tests above walk."""
    app = XinferApp()
    app.service = Mock()
    app.initialize_handlers()

    assert [(pattern, handler) for pattern, handler, _ in app.handlers] == [
        (pattern, handler) for pattern, handler, _ in routes(Mock())
    ]
    assert app.static_paths == []
    assert app.template_paths == []


SOCKETS = [example(pattern) for pattern, handler, _ in routes(Mock()) if issubclass(handler, WebSocketHandler)]


@pytest.mark.parametrize("route", SOCKETS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer sk-xinfer-wrong"},
        {"Origin": "https://elsewhere.example"},
        {"Cookie": "username-127-0-0-1=x"},
    ],
)
async def test_no_websocket_opens_without_a_credential(xinfer_server: Any, route: str, headers: dict[str, str]) -> None:
    url = xinfer_server.url.replace("http", "ws") + route
    with pytest.raises(HTTPClientError) as refused:
        await websocket_connect(HTTPRequest(url, headers=headers))

    assert refused.value.code in (401, 403)


@pytest.mark.parametrize("route", SOCKETS)
async def test_a_login_of_another_site_does_not_open_a_websocket(xinfer_server: Any, route: str) -> None:
    """A page elsewhere can have a browser connect with its cookie; its origin tells."""
    async with httpx.AsyncClient(base_url=xinfer_server.url) as browser:
        await browser.get(f"login?token={xinfer_server.token}")
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    url = xinfer_server.url.replace("http", "ws") + route
    opened = await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie}))
    await closed(opened)
    with pytest.raises(HTTPClientError) as refused:
        await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie, "Origin": "https://elsewhere.example"}))

    assert refused.value.code == 403


@pytest.fixture(scope="module")
def powerless(xinfer_server: Any) -> Any:
    """A client with a key that has no permission at all."""
    _, secret = KeyStore(xinfer_server.home).create(name="powerless", owner="tests", permissions=frozenset())
    with client(xinfer_server, secret) as http:
        yield http


@pytest.mark.parametrize(("method", "route", "permission"), VERBS)
def test_a_key_without_a_verbs_permission_is_refused_by_its_name(
    powerless: httpx.Client, method: str, route: str, permission: str
) -> None:
    answer = powerless.request(method, route, json={})

    assert answer.status_code == 403, answer.text
    assert f"`{permission}`" in answer.json()["detail"]


def client(server: Any, credential: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {credential}"}, timeout=60)


def key(server: Any, *permissions: str, **fields: Any) -> tuple[str, str]:
    """(name, secret) of a new key in the store of a server that runs."""
    name = f"key-{secrets.token_hex(4)}"
    _, secret = KeyStore(server.home).create(name=name, owner="tests", permissions=frozenset(permissions), **fields)
    return name, secret


QUESTION = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}


def test_a_key_that_may_read_generates_and_launches_nothing(xinfer_server: Any) -> None:
    _, secret = key(xinfer_server, "models:read")
    with client(xinfer_server, secret) as http:
        answer = http.post("v1/chat/completions", json=QUESTION)
        refused = http.post("v1/models", json={"model_name": "xinfer-demo"})
        jupyters = http.get("api/kernels")

    assert answer.status_code == 200, answer.text
    assert "set-cookie" not in answer.headers
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "permission_denied"
    assert "`models:start`" in refused.json()["detail"]
    assert jupyters.status_code == 403


def test_a_key_that_may_start_is_not_stopped_by_the_gate(xinfer_server: Any) -> None:
    _, secret = key(xinfer_server, "models:start")
    with client(xinfer_server, secret) as http:
        assert http.post("v1/models", json={"model_name": "no-such-model"}).status_code in (400, 404)


def test_a_key_that_may_start_learns_nothing_about_files(xinfer_server: Any, tmp_path: Path) -> None:
    there = tmp_path / "there.gguf"
    there.write_bytes(b"GGUF")
    _, secret = key(xinfer_server, "models:start")
    with client(xinfer_server, secret) as http:
        refused = [http.post("v1/models", json={"model_path": str(each)}) for each in (there, tmp_path / "gone.gguf")]
    assert [each.status_code for each in refused] == [403, 403]
    assert refused[0].json() == refused[1].json()
    assert refused[0].json()["error"]["param"] == "model_path"
    with xinfer_server.client() as http:
        assert http.post("v1/models", json={"model_path": str(there)}).status_code == 400


def test_a_key_that_may_register_registers_no_file(xinfer_server: Any) -> None:
    spec = {"model_format": "ggufv2", "model_size_in_billions": 1, "quantizations": ["q8_0"]}
    model = {
        "version": 2,
        "model_name": f"mine-{secrets.token_hex(4)}",
        "model_lang": ["en"],
        "model_ability": ["chat"],
        "model_family": "mine",
        "model_specs": [{**spec, "model_uri": "file:///home/ann/secret.gguf"}],
    }
    _, secret = key(xinfer_server, "models:register")
    with client(xinfer_server, secret) as http:
        refused = http.post("v1/model_registrations/LLM", json={"model": json.dumps(model)})
        model["model_specs"] = [{**spec, "model_uri": "hf://owner/model-GGUF/model.gguf"}]
        registered = http.post("v1/model_registrations/LLM", json={"model": json.dumps(model)})
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "model_uri")
    assert registered.status_code == 200, registered.text
    with xinfer_server.client() as http:
        assert http.delete(f"v1/model_registrations/LLM/{model['model_name']}").status_code == 200


def test_who_may_start_and_not_stop_replaces_nothing(xinfer_server: Any) -> None:
    _, secret = key(xinfer_server, "models:start")
    with client(xinfer_server, secret) as http:
        answer = http.post("v1/models", params={"replace": "true"}, json={"model_name": "xinfer-demo"})

    assert answer.status_code == 403
    assert "`models:stop`" in answer.json()["detail"]


def test_a_key_for_other_models_neither_sees_nor_uses_this_one(xinfer_server: Any) -> None:
    _, secret = key(xinfer_server, "models:list", "models:read", models=frozenset({"another"}))
    with client(xinfer_server, secret) as http:
        assert http.get("v1/models").json()["data"] == []
        for answer in (http.get("v1/models/xinfer-demo"), http.post("v1/chat/completions", json=QUESTION)):
            assert answer.status_code == 403, answer.text
            assert "xinfer-demo" in answer.json()["detail"]


def test_a_revoked_key_is_refused_at_the_next_request(xinfer_server: Any) -> None:
    name, secret = key(xinfer_server, "models:list")
    with client(xinfer_server, secret) as http:
        assert http.get("v1/models").status_code == 200
        KeyStore(xinfer_server.home).revoke(name)
        answer = http.get("v1/models")

    assert answer.status_code == 401
    assert "revoked" in answer.json()["detail"]


def test_above_its_limit_a_key_is_told_when_to_come_back(xinfer_server: Any) -> None:
    _, secret = key(xinfer_server, "models:read", limits=Limits(requests_per_minute=1))
    with client(xinfer_server, secret) as http:
        assert http.post("v1/chat/completions", json=QUESTION).status_code == 200
        answer = http.post("v1/chat/completions", json={**QUESTION, "stream": True})

    assert answer.status_code == 429
    assert 50 < int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


def test_a_browsers_preflight_is_answered_and_tells_nothing(xinfer_server: Any) -> None:
    answer = httpx.options(xinfer_server.url + "v1/models", headers={"Origin": "https://elsewhere.example"})

    assert answer.status_code in (200, 204)
    assert answer.content == b""
    assert "access-control-allow-origin" not in answer.headers


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


@pytest.mark.parametrize("route", ["xinfer/dask/status", "xinfer/dask/status/ws"])
def test_a_key_does_not_open_the_dashboard(xinfer_server: Any, route: str) -> None:
    key = runtime_facts(xinfer_server)["key"]

    assert httpx.get(xinfer_server.url + route, headers={"Authorization": f"Bearer {key}"}).status_code == 403


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
