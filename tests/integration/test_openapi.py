"""The description of the API, as the server gives it."""

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator


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


CHAT = {"model": "xinfer-demo", "messages": [{"role": "user", "content": "What is the weather in Rome?"}]}
ADD = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", "/v1/cluster/auth", None),
    ("POST", "/v1/chat/completions", {**CHAT, "max_tokens": 5, "n": 2, "logprobs": True}),
    ("POST", "/v1/chat/completions", {**CHAT, "tools": [{"type": "function", "function": ADD}]}),
    ("POST", "/v1/completions", {"model": "xinfer-demo", "prompt": ["a", "b"], "logprobs": 1}),
    ("POST", "/v1/responses", {"model": "xinfer-demo", "input": "Hello!", "max_output_tokens": 3}),
    ("POST", "/v1/messages", {**CHAT, "max_tokens": 3}),
    ("POST", "/v1/messages/count_tokens", CHAT),
    ("POST", "/tokenize", {"model": "xinfer-demo", "prompt": "a", "return_token_strs": True}),
    ("POST", "/tokenize", {"content": "a", "with_pieces": True}),
    ("POST", "/detokenize", {"model": "xinfer-demo", "tokens": [1]}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/{id}", None),
    ("GET", "/v1/models/{id}/progress", None),
    ("GET", "/v1/models/{id}/events", None),
    ("GET", "/v1/models/{id}/replicas", None),
    ("GET", "/v1/models/instances", None),
    ("GET", "/v1/cache/models", None),
    ("GET", "/v1/cluster/info", None),
    ("GET", "/v1/cluster/devices", None),
    ("POST", "/v1/models/{id}/requests/{id2}/abort", {}),
    ("GET", "/xinfer/info", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_an_answer_has_the_shape_that_the_document_says(xinfer_server: Any, method: str, path: str, body: Any) -> None:
    with xinfer_server.client() as http:
        described = http.get("openapi.json").json()
        filled = path.replace("{id}", "xinfer-demo").replace("{id2}", "none").removeprefix("/")
        answer = http.request(method, filled, json=body)

    assert answer.status_code == 200, answer.text
    said = described["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]["schema"]
    assert said != {}
    Draft202012Validator({**said, "components": described["components"]}).validate(answer.json())


def test_an_error_has_the_shape_that_the_document_says(xinfer_server: Any) -> None:
    with xinfer_server.client() as http:
        described = http.get("openapi.json").json()
        answer = http.post("v1/chat/completions", json={})

    schema = {"$ref": "#/components/schemas/ErrorBody", "components": described["components"]}
    Draft202012Validator(schema).validate(answer.json())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("v1/chat/completions", {**CHAT, "guided_regex": "("}),
        ("v1/chat/completions", {**CHAT, "guided_grammar": "start: ???"}),
        ("v1/chat/completions", {**CHAT, "guided_json": {"$ref": "#/nowhere"}}),
        ("v1/chat/completions", {**CHAT, "chat_template_kwargs": {"messages": 1}}),
        ("v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": "x " * 10_000}]}),
        ("v1/completions", {"model": "xinfer-demo", "prompt": [2**31 - 1]}),
        ("v1/models", {"model_name": "../../etc/passwd"}),
        ("v1/models", {"model_path": "/etc/passwd"}),
        ("v1/models", {"model_name": "xinfer-demo", "model_uid": "../x"}),
        ("v1/models", {"model_name": "xinfer-demo", "trust_remote_code": True}),
        ("v1/models", {"model_name": "xinfer-demo", "model_engine": "os.system"}),
        ("v1/model_registrations/LLM", {"model": "{}"}),
        ("v1/models/xinfer-demo/replicas", {"replica": 10**30}),
    ],
)
def test_an_error_says_what_is_wrong_and_nothing_of_the_inside(xinfer_server: Any, path: str, body: Any) -> None:
    with xinfer_server.client() as http:
        answer = http.post(path, json=body)

    assert 400 <= answer.status_code < 500, answer.text
    said = answer.json()["error"]["message"]
    for inside in ("Traceback", 'File "', "site-packages", "xinfer_runtime", str(xinfer_server.home), "line 1, in"):
        assert inside not in said
