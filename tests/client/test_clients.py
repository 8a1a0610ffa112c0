"""Both clients, against recorded answers: what they send, and what they make of it."""

import base64
import inspect
import struct
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from xinfer_runtime.client import AsyncClient, Client
from xinfer_runtime.client import async_client as async_module
from xinfer_runtime.client import sync_client as sync_module
from xinfer_runtime.client.errors import ConnectionFailed, LaunchFailed, UnexpectedAnswer
from xinfer_runtime.errors import (
    AuthenticationRequired,
    Cancelled,
    Conflict,
    DoesNotFit,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NotFound,
    Unavailable,
    XinferError,
)

Connect = Callable[[dict[str, Any]], Any]
URL = "http://server/user/x/"


@pytest.fixture(params=[Client, AsyncClient])
def connect(request: pytest.FixtureRequest, recorded: Any) -> Connect:
    """A client of either kind, and the record of what it sent."""

    def build(answers: dict[str, Any]) -> Any:
        record = recorded(answers)
        return request.param(URL, "secret-key", transport=record.transport), record

    return build


async def settle(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def drain(stream: Any) -> list[str]:
    return [text async for text in stream] if hasattr(stream, "__anext__") else list(stream)


async def close(stream: Any) -> None:
    await settle(stream.aclose() if hasattr(stream, "aclose") else stream.close())


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        del seconds

    monkeypatch.setattr(sync_module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(async_module.asyncio, "sleep", sleep)


async def test_models_are_listed_by_uid(connect: Connect, model: Any) -> None:
    client, record = connect({"GET v1/models": {"object": "list", "data": [model("a"), model("b", "loading")]}})
    models = await settle(client.list_models())
    assert {uid: handle.state for uid, handle in models.items()} == {"a": "ready", "b": "loading"}
    assert record.requests[0].headers["Authorization"] == "Bearer secret-key"


async def test_unknown_fields_of_a_newer_server_are_ignored(connect: Connect, model: Any) -> None:
    client, _ = connect({"GET v1/models/demo": model(novelty={"x": 1})})
    assert (await settle(client.get_model("demo"))).uid == "demo"


async def test_a_launch_waits_and_tells_its_progress(connect: Connect, sse: Any, model: Any) -> None:
    events = sse(model(state="placing", progress=0.0), model(state="loading", progress=0.5), model())
    client, record = connect({"POST v1/models": {"model_uid": "demo"}, "GET v1/models/demo/events": events})
    seen: list[str] = []
    uid = await settle(
        client.launch_model("xinfer-demo", replica=2, progress=lambda description: seen.append(description.state))
    )
    assert (uid, seen) == ("demo", ["placing", "loading", "ready"])
    assert record.requests[0].url.query == b"wait_ready=false"
    assert record.requests[1].headers["Accept"] == "text/event-stream"
    assert record.bodies == [{"model_name": "xinfer-demo", "model_type": "LLM", "replica": 2, "n_gpu": "auto"}]


async def test_no_gpu_is_said_explicitly(connect: Connect) -> None:
    client, record = connect({"POST v1/models": {"model_uid": "demo"}})
    await settle(client.launch_model("xinfer-demo", n_gpu=None, wait_ready=False))
    assert record.bodies[0]["n_gpu"] is None


async def test_a_launch_without_a_name_or_path_is_refused_here(connect: Connect) -> None:
    client, record = connect({})
    with pytest.raises(InvalidRequest, match="Which model"):
        await settle(client.launch_model())
    assert record.requests == []


async def test_a_failed_launch_says_why(connect: Connect, sse: Any, model: Any) -> None:
    events = sse(model(state="failed", message="the file is truncated"))
    client, _ = connect({"POST v1/models": {"model_uid": "demo"}, "GET v1/models/demo/events": events})
    with pytest.raises(LaunchFailed, match="'demo' could not be launched: the file is truncated"):
        await settle(client.launch_model("xinfer-demo"))


async def test_a_failed_launch_has_the_class_that_the_server_names(connect: Connect, sse: Any, model: Any) -> None:
    events = sse(model(state="failed", error={"code": "does_not_fit", "message": "needs 9 GiB, 4 GiB are free"}))
    client, _ = connect({"POST v1/models": {"model_uid": "demo"}, "GET v1/models/demo/events": events})
    with pytest.raises(DoesNotFit, match="9 GiB"):
        await settle(client.launch_model("xinfer-demo"))


@pytest.mark.usefixtures("no_pause")
async def test_a_launch_survives_a_cut_of_its_event_stream(connect: Connect, sse: Any, model: Any) -> None:
    streams = [sse(model(state="loading"), done=False), httpx.ReadError("cut"), sse(model())]
    answers = {
        "POST v1/models": {"model_uid": "demo"},
        "GET v1/models/demo/events": streams,
        "GET v1/models/demo": [model(state="loading"), model(state="loading")],
    }
    client, record = connect(answers)
    with pytest.raises(ConnectionFailed):
        await settle(client.launch_model("xinfer-demo"))
    assert len(record.requests) == 4


@pytest.mark.usefixtures("no_pause")
async def test_a_launch_goes_on_when_its_event_stream_ends_early(connect: Connect, sse: Any, model: Any) -> None:
    answers = {
        "POST v1/models": {"model_uid": "demo"},
        "GET v1/models/demo/events": [sse(model(state="loading"), done=False), sse(model())],
        "GET v1/models/demo": model(state="loading"),
    }
    client, record = connect(answers)
    assert await settle(client.launch_model("xinfer-demo")) == "demo"
    assert len(record.requests) == 4


async def test_a_model_that_is_stopped_while_it_launches_is_a_cancelled_launch(
    connect: Connect, sse: Any, model: Any
) -> None:
    answers = {
        "POST v1/models": {"model_uid": "demo"},
        "GET v1/models/demo/events": sse(model(state="loading")),
        "GET v1/models/demo": error_response(404, "model_not_found"),
    }
    client, _ = connect(answers)
    with pytest.raises(Cancelled, match="stopped before it was ready"):
        await settle(client.launch_model("xinfer-demo"))


async def test_a_conversation_is_answered(connect: Connect, model: Any) -> None:
    answer = {"choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}]}
    client, record = connect({"GET v1/models/demo": model(), "POST v1/chat/completions": answer})
    handle = await settle(client.get_model("demo"))
    completion = await settle(handle.chat("Capital of France?", temperature=0, max_tokens=None))
    assert str(completion) == "Paris."
    assert record.bodies == [
        {"model": "demo", "messages": [{"role": "user", "content": "Capital of France?"}], "temperature": 0}
    ]


async def test_a_streamed_answer_comes_in_pieces_and_keeps_the_result(connect: Connect, sse: Any, model: Any) -> None:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("Par", "is.")]
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    client, record = connect({"GET v1/models/demo": model(), "POST v1/chat/completions": sse(*chunks, usage)})
    handle = await settle(client.get_model("demo"))
    stream = await settle(handle.chat("Capital?", stream=True))
    assert await drain(stream) == ["Par", "is."]
    assert (stream.text, stream.result.usage.completion_tokens) == ("Paris.", 2)
    assert record.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_text_is_continued(connect: Connect, sse: Any, model: Any) -> None:
    client, record = connect(
        {"GET v1/models/demo": model(), "POST v1/completions": sse({"choices": [{"text": " upon"}]})}
    )
    handle = await settle(client.get_model("demo"))
    assert await drain(await settle(handle.generate("Once", stream=True))) == [" upon"]
    assert record.bodies[0]["prompt"] == "Once"


async def test_a_stream_that_is_cut_is_an_error_and_keeps_what_came(connect: Connect, sse: Any, model: Any) -> None:
    cut = sse({"choices": [{"delta": {"content": "Par"}}]}, done=False)
    client, _ = connect({"GET v1/models/demo": model(), "POST v1/chat/completions": cut})
    handle = await settle(client.get_model("demo"))
    stream = await settle(handle.chat("Capital?", stream=True))
    with pytest.raises(ConnectionFailed, match="before the answer was complete"):
        await drain(stream)
    assert stream.text == "Par"


async def test_a_closed_stream_yields_nothing_more(connect: Connect, sse: Any, model: Any) -> None:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in "abc"]
    client, _ = connect({"GET v1/models/demo": model(), "POST v1/chat/completions": sse(*chunks)})
    handle = await settle(client.get_model("demo"))
    stream = await settle(handle.chat("Capital?", stream=True))
    await close(stream)
    assert await drain(stream) == []


async def test_an_error_before_the_first_piece_is_raised_at_once(connect: Connect, model: Any) -> None:
    refused = error_response(503, "model_not_ready")
    client, _ = connect({"GET v1/models/demo": model(), "POST v1/chat/completions": refused})
    handle = await settle(client.get_model("demo"))
    with pytest.raises(ModelNotReady):
        await settle(handle.chat("Capital?", stream=True))


def error_response(status: int, code: str) -> httpx.Response:
    body = {"message": f"it is {code}", "type": "x", "param": "field", "code": code}
    return httpx.Response(status, json={"error": body, "detail": body["message"]})


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        (lambda: error_response(404, "model_not_found"), ModelNotFound, "it is model_not_found"),
        (lambda: error_response(409, "conflict"), Conflict, "it is conflict"),
        (lambda: error_response(404, "a_code_of_the_future"), NotFound, "it is a_code_of_the_future"),
        (lambda: error_response(500, "internal_error"), XinferError, "it is internal_error"),
        (lambda: httpx.Response(302, headers={"Location": "/login"}), UnexpectedAnswer, "asks for a login"),
        (lambda: httpx.Response(403, text="Forbidden"), XinferError, "asks for a login"),
        (lambda: httpx.Response(404, text="<html>"), NotFound, "no jupyter-xinfer at http://server/user/x/"),
        (lambda: httpx.Response(502, text="bad gateway"), Unavailable, "502 Bad Gateway"),
        (lambda: httpx.Response(200, text="<html>login</html>"), UnexpectedAnswer, "not what jupyter-xinfer sends"),
        (httpx.ConnectError("Connection refused"), ConnectionFailed, "Cannot reach http://server/user/x/"),
        (httpx.ConnectTimeout("slow"), ConnectionFailed, "Gave up connecting"),
        (httpx.ReadTimeout("slow"), ConnectionFailed, "Gave up waiting"),
        (httpx.RemoteProtocolError("gone"), ConnectionFailed, "broke before the answer was complete"),
        (
            httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            ConnectionFailed,
            "certificate that is not trusted",
        ),
    ],
)
async def test_failures_say_what_happened_and_where(
    connect: Connect, response: Any, kind: type[XinferError], words: str
) -> None:
    client, _ = connect({"GET v1/models/demo": response})
    with pytest.raises(kind) as caught:
        await settle(client.get_model("demo"))
    assert words in caught.value.message
    assert "secret-key" not in caught.value.message


async def test_an_error_names_the_field_at_fault(connect: Connect) -> None:
    client, _ = connect({"POST v1/models": error_response(400, "invalid_request")})
    with pytest.raises(InvalidRequest) as caught:
        await settle(client.launch_model("x"))
    assert caught.value.param == "field"


async def test_a_login_page_asks_for_authentication(connect: Connect) -> None:
    client, _ = connect({"GET v1/models": httpx.Response(401, text="who?")})
    with pytest.raises(AuthenticationRequired, match="XINFER_API_KEY"):
        await settle(client.list_models())


async def test_terminating_sends_a_delete(connect: Connect) -> None:
    client, record = connect({"DELETE v1/models/a%2Fb": None})
    await settle(client.terminate_model("a/b"))
    assert record.requests[0].method == "DELETE"


async def test_an_empty_uid_never_reaches_the_list_of_all_models(connect: Connect) -> None:
    client, record = connect({})
    with pytest.raises(InvalidRequest):
        await settle(client.terminate_model(""))
    assert record.requests == []


async def test_the_history_of_a_model_is_read(connect: Connect) -> None:
    event = {"event_type": "INFO", "event_ts": 3.5, "event_content": "ready"}
    client, _ = connect({"GET v1/models/demo/events": [[event]]})
    assert [line.event_content for line in await settle(client.model_events("demo"))] == ["ready"]


async def test_the_server_describes_itself(connect: Connect) -> None:
    cluster = {"state": "running", "scheduler": "tls://127.0.0.1:1", "message": ""}
    client, _ = connect({"GET xinfer/info": {"version": "1", "base_url": "/", "cluster": cluster, "dashboard": None}})
    assert (await settle(client.info())).cluster.state == "running"


async def test_the_catalog_is_listed(connect: Connect) -> None:
    client, _ = connect({"GET v1/model_registrations/LLM": [[{"model_name": "xinfer-demo", "is_builtin": True}]]})
    assert [entry.model_name for entry in await settle(client.list_model_registrations())] == ["xinfer-demo"]


def test_both_clients_offer_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name.removeprefix("a") if name == "aclose" else name for name in vars(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
    assert methods(sync_module.Model) == methods(async_module.AsyncModel)


def test_requests_to_this_machine_never_use_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1/")
    with Client("http://127.0.0.1:8888/", "k") as client:
        local = client._http._transport_for_url(httpx.URL("http://127.0.0.1:8888/v1/models"))
        remote = client._http._transport_for_url(httpx.URL("http://elsewhere/v1/models"))
    assert local is client._http._transport
    assert remote is not client._http._transport


async def test_texts_become_vectors(connect: Connect, model: Any) -> None:
    data = [
        {"object": "embedding", "index": 1, "embedding": base64.b64encode(struct.pack("<2f", 0.6, 0.8)).decode()},
        {"object": "embedding", "index": 0, "embedding": base64.b64encode(struct.pack("<2f", 1.0, 0.0)).decode()},
    ]
    client, record = connect({"GET v1/models/demo": model(), "POST v1/embeddings": {"object": "list", "data": data}})
    handle = await settle(client.get_model("demo"))
    vectors = await settle(handle.embed(["a", "b"], dimensions=2, truncate=True))
    assert vectors == [[1.0, 0.0], [pytest.approx(0.6), pytest.approx(0.8)]]
    expected = {"model": "demo", "input": ["a", "b"], "encoding_format": "base64"}
    assert record.bodies == [{**expected, "dimensions": 2, "truncate_prompt_tokens": -1}]
    await settle(handle.embed("one"))
    assert record.bodies[1]["input"] == ["one"]


async def test_documents_are_ranked(connect: Connect, model: Any) -> None:
    results = [{"index": 1, "relevance_score": 0.9, "document": None}]
    client, record = connect({"GET v1/models/demo": model(), "POST v1/rerank": {"id": "r", "results": results}})
    handle = await settle(client.get_model("demo"))
    [best] = await settle(handle.rerank("q", ["a", "b"], top_n=1))
    assert (best.index, best.score, best.document) == (1, 0.9, "b")
    assert record.bodies == [{"model": "demo", "query": "q", "documents": ["a", "b"], "top_n": 1}]


@pytest.mark.parametrize("answer", [{"data": [{"index": 0, "embedding": "!"}]}, {"data": 1}, {}])
async def test_an_answer_without_vectors_is_not_taken_for_some(connect: Connect, model: Any, answer: Any) -> None:
    client, _ = connect({"GET v1/models/demo": model(), "POST v1/embeddings": answer})
    handle = await settle(client.get_model("demo"))
    with pytest.raises(UnexpectedAnswer):
        await settle(handle.embed("a"))
