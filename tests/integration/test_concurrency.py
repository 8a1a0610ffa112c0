"""Many streams at once: everyone gets their own answer, and a client that leaves frees its place."""

import asyncio
import time
from typing import Any

import httpx
import openai

STREAMS = 64


def question(i: int) -> tuple[str, str]:
    a, b = i % 8 + 2, i // 8 + 3
    return f"What is {a} + {b}?", str(a + b)


async def ask(client: openai.AsyncOpenAI, text: str) -> str:
    stream = await client.chat.completions.create(
        model="xinfer-demo", messages=[{"role": "user", "content": text}], temperature=0, stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def test_64_streams_each_get_their_own_right_answer(xinfer_server: Any) -> None:
    questions = [question(i) for i in range(STREAMS)]
    async with openai.AsyncOpenAI(base_url=f"{xinfer_server.url}v1", api_key=xinfer_server.token) as client:
        answers = await asyncio.gather(*(ask(client, text) for text, _ in questions))

    wrong = [(text, got) for (text, want), got in zip(questions, answers, strict=True) if want not in got]
    assert not wrong


async def test_clients_that_disconnect_free_their_slots_within_a_second(xinfer_server: Any) -> None:
    body = {
        "model": "xinfer-demo",
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "stream": True,
        # So many and so long that they cannot end by themselves within the test's second.
        "ignore_eos": True,
        "max_tokens": 900,
    }
    async with httpx.AsyncClient(base_url=xinfer_server.url, headers=xinfer_server.headers, timeout=30) as http:
        assert await load_becomes(http, 0, seconds=10)
        clients = [asyncio.create_task(http.post("v1/chat/completions", json=body)) for _ in range(STREAMS)]
        assert await load_becomes(http, STREAMS, seconds=10)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        left = time.monotonic()
        assert await load_becomes(http, 0, seconds=1), f"still generating {time.monotonic() - left:.1f} s later"


async def load(http: httpx.AsyncClient) -> int:
    model = (await http.get("v1/models/xinfer-demo")).json()
    return int(model["running"]) + int(model["waiting"])


async def load_becomes(http: httpx.AsyncClient, value: int, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if await load(http) == value:
            return True
        await asyncio.sleep(0.02)
    return False
