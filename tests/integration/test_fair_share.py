"""Callers of one busy model over HTTP: they share it by weight, and batch requests let others go first."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jupyter_xinfer.auth.key_store import KeyStore
from jupyter_xinfer.auth.principal import Limits
from xinfer_runtime.messages import Priority

TOKENS = 16


@pytest.fixture(scope="module")
def busy(xinfer_server: Any) -> Iterator[str]:
    """A model that computes two requests at a time."""
    body = {"model_name": "xinfer-demo", "model_uid": "busy", "max_sequences": 2, "context_length": 512}
    headers = {"Authorization": f"Bearer {xinfer_server.token}"}
    with httpx.Client(base_url=xinfer_server.url, headers=headers, timeout=60) as http:
        http.post("v1/models", json=body).raise_for_status()
        yield "busy"
        http.delete("v1/models/busy").raise_for_status()


def key(server: Any, **limits: Any) -> httpx.AsyncClient:
    _, secret = KeyStore(server.home).create(
        name=f"key-{secrets.token_hex(4)}",
        owner="tests",
        permissions=frozenset({"models:read"}),
        limits=Limits(**limits),
    )
    return httpx.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {secret}"}, timeout=120)


async def ask(http: httpx.AsyncClient, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": TOKENS, "ignore_eos": True, **fields}
    return await http.post("v1/completions", json=body)


async def test_two_keys_get_tokens_by_their_weights(xinfer_server: Any, busy: str) -> None:
    got = {"one": 0, "three": 0}
    over = False

    async def client(http: httpx.AsyncClient, name: str) -> None:
        while not over:
            answer = await ask(http, busy)
            answer.raise_for_status()
            got[name] += answer.json()["usage"]["completion_tokens"]

    async with key(xinfer_server, weight=1.0) as one, key(xinfer_server, weight=3.0) as three:
        tasks = [asyncio.ensure_future(client(one, "one")) for _ in range(12)]
        tasks += [asyncio.ensure_future(client(three, "three")) for _ in range(12)]
        deadline = time.monotonic() + 60
        while sum(got.values()) < 160 * TOKENS:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        seen = dict(got)
        over = True
        await asyncio.gather(*tasks)
    assert 2.2 < seen["three"] / seen["one"] < 3.8, seen


async def test_interactive_requests_pass_batch_ones(xinfer_server: Any, busy: str) -> None:
    order: list[str] = []

    async def client(http: httpx.AsyncClient, name: str) -> None:
        (await ask(http, busy, max_tokens=64)).raise_for_status()
        order.append(name)

    async with key(xinfer_server, priority=Priority.BATCH) as batch, key(xinfer_server) as person:
        tasks = [asyncio.ensure_future(client(batch, "batch")) for _ in range(12)]
        await asyncio.sleep(0.05)
        tasks += [asyncio.ensure_future(client(person, "person")) for _ in range(3)]
        await asyncio.gather(*tasks)
        assert max(index for index, name in enumerate(order) if name == "person") < len(order) - 3, order
        refused = await ask(batch, busy, priority="interactive")
        assert refused.status_code == 403
        assert refused.json()["error"]["param"] == "priority"
        assert (await ask(person, busy, priority="batch")).status_code == 200
        assert (await ask(person, busy, priority="urgent")).status_code == 400


async def test_a_timeout_ends_a_request_and_makes_room(xinfer_server: Any, busy: str) -> None:
    async with key(xinfer_server) as http:
        late = await ask(http, busy, max_tokens=500, timeout=0.05)
        assert late.status_code == 408, late.text
        assert late.json()["error"]["code"] == "deadline_exceeded"
        assert (await ask(http, busy)).status_code == 200
