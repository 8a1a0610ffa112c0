"""A server of recorded answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

URL = "http://server/user/x/"


@dataclass
class Recorded:
    """Answers by "METHOD path", each a response or several to be given in turn; and the requests that came."""

    answers: dict[str, Any]
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.raw_path.decode().removeprefix("/user/x/").partition("?")[0]
        answer = self.answers[f"{request.method} {path}"]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests if request.content]

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)


@pytest.fixture
def recorded() -> Callable[[dict[str, Any]], Recorded]:
    return Recorded


@pytest.fixture
def sse() -> Callable[..., httpx.Response]:
    """A response that streams these objects, and then [DONE] unless told otherwise."""

    def build(*objects: Any, done: bool = True) -> httpx.Response:
        lines = [f"data: {json.dumps(item)}\n\n" for item in objects] + (["data: [DONE]\n\n"] if done else [])
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content="".join(lines).encode())

    return build


@pytest.fixture
def model() -> Callable[..., dict[str, Any]]:
    """A model as the server describes it."""

    def build(uid: str = "demo", state: str = "ready", **fields: Any) -> dict[str, Any]:
        replica = {"replica_id": f"{uid}-0", "node": "here", "state": state, "progress": 1.0, "message": "", "pid": 7}
        return {
            "id": uid,
            "object": "model",
            "created": 1,
            "owned_by": "jupyter-xinfer",
            "model_uid": uid,
            "model_name": "xinfer-demo",
            "model_type": "LLM",
            "model_engine": "llama.cpp",
            "model_format": "ggufv2",
            "model_size_in_billions": "0_01",
            "quantization": "q8_0",
            "context_length": 1024,
            "model_ability": ["generate", "chat", "tools"],
            "replica": 1,
            "state": state,
            "progress": 1.0,
            "message": "",
            "memory_bytes": 126531665,
            "replicas": [replica],
            "running": 0,
            "waiting": 0,
            "tokens_per_second": 0.0,
            **fields,
        }

    return build
