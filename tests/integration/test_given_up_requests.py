"""Requests whose clients leave before the answer is complete: what was computed for them is on their account."""

import contextlib
import logging
import secrets
import time
from typing import Any

import httpx
import pytest

from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.ledger import Ledger, UsageRow
from jupyter_xinfer.auth.principal import Limits

LONG: dict[str, Any] = {
    "model": "xinfer-demo",
    "messages": [{"role": "user", "content": "Tell me a story. " * 40}],
    "max_tokens": 200,
    "ignore_eos": True,
}


@pytest.fixture
def caller(xinfer_server: Any) -> tuple[str, httpx.Client]:
    """The name of a key with a small budget, and a client that uses it."""
    name = f"leaves-{secrets.token_hex(4)}"
    _, secret = KeyStore(xinfer_server.home).create(
        name=name, owner="tests", permissions=frozenset({"models:read"}), limits=Limits(tokens_per_day=100)
    )
    return name, httpx.Client(
        base_url=xinfer_server.url, headers={"Authorization": f"Bearer {secret}"}, timeout=httpx.Timeout(60)
    )


def account(server: Any, name: str) -> UsageRow:
    """What the ledger has of this key, once it has something."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for row in Ledger(server.home, logging.getLogger(__name__)).rows():
            if row.caller == f"api_key:{name}":
                return row
        time.sleep(0.2)
    pytest.fail("nothing was written")


def prompt_tokens(server: Any) -> int:
    with server.client() as http:
        answer = http.post("v1/chat/completions", json={**LONG, "max_tokens": 1})
    return int(answer.json()["usage"]["prompt_tokens"])


def test_a_stream_that_is_left_after_its_first_words_costs_prompt_and_words(
    xinfer_server: Any, caller: tuple[str, httpx.Client]
) -> None:
    name, http = caller
    with http:
        with http.stream("POST", "v1/chat/completions", json={**LONG, "stream": True}) as stream:
            assert stream.status_code == 200
            lines = stream.iter_lines()
            while '"content":"' not in next(lines):
                pass
        row = account(xinfer_server, name)
        refused = http.post("v1/chat/completions", json=LONG)

    assert row.prompt_tokens == prompt_tokens(xinfer_server)
    assert row.completion_tokens >= 1
    assert row.requests == 1
    assert refused.status_code == 429, refused.text


def test_a_whole_answer_that_nobody_waits_for_costs_what_was_computed(
    xinfer_server: Any, caller: tuple[str, httpx.Client]
) -> None:
    name, http = caller
    with http, contextlib.suppress(httpx.ReadTimeout):
        # After 3 s the prompts are computed; an answer that is there by then costs as much or more.
        http.post("v1/chat/completions", json={**LONG, "n": 8}, timeout=httpx.Timeout(60, read=3))
    row = account(xinfer_server, name)

    assert row.prompt_tokens > 0
    assert row.prompt_tokens % prompt_tokens(xinfer_server) == 0


def test_a_request_is_aborted_by_its_caller_or_an_administrator_alone(
    xinfer_server: Any, caller: tuple[str, httpx.Client]
) -> None:
    _, other = KeyStore(xinfer_server.home).create(
        name=f"other-{secrets.token_hex(4)}", owner="tests", permissions=frozenset({"models:read"})
    )
    _, http = caller
    id = f"req-{secrets.token_hex(8)}"
    abort = f"{xinfer_server.url}v1/models/xinfer-demo/requests/{id}/abort"
    body = {**LONG, "stream": True, "max_tokens": 700}
    with http, http.stream("POST", "v1/chat/completions", json=body, headers={"X-Request-Id": id}) as stream:
        lines = stream.iter_lines()
        next(lines)
        stranger = httpx.post(abort, headers={"Authorization": f"Bearer {other}"}).json()
        administrator = httpx.post(abort, headers=xinfer_server.headers).json()
        rest = list(lines)

    assert stranger == {"msg": "NOT_FOUND"}
    # The stream may have come to its end by then; it was not the stranger who ended it.
    assert administrator == {"msg": "DONE"} or '"finish_reason":"length"' in "".join(rest)
    assert administrator == {"msg": "NOT_FOUND"} or "was aborted" in "".join(rest)
