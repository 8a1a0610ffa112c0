"""The commands in this process, against recorded answers."""

import base64
import io
import json
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from jupyter_xinfer.cli import chat, main, models, vectors
from xinfer_runtime.client import Client

CHAT = "POST v1/chat/completions"
Run = Callable[..., int]


@pytest.fixture
def run(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line against a server of these answers; `record` is what it was asked."""

    def build(answers: dict[str, Any], *argv: str) -> int:
        record = recorded(answers)
        connect = lambda arguments: Client("http://server/user/x/", "secret", transport=record.transport)  # noqa: E731
        monkeypatch.setattr(models, "connect", connect)
        monkeypatch.setattr(chat, "connect", connect)
        monkeypatch.setattr(vectors, "connect", connect)
        build.record = record
        return main(argv)

    return build


@pytest.fixture
def words(sse: Any) -> Callable[..., httpx.Response]:
    return lambda *texts: sse(*({"choices": [{"delta": {"content": text}}]} for text in texts))


class Keyboard(io.StringIO):
    """What a person types, line by line; None stands for Ctrl-C."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lines: str | None) -> None:
        super().__init__()
        self._lines = iter(lines)
        monkeypatch.setattr(sys, "stdin", self)
        monkeypatch.setattr("builtins.input", self.input)

    def isatty(self) -> bool:
        return True

    def input(self, prompt: str) -> str:
        del prompt
        line = next(self._lines, "")
        if line == "":
            raise EOFError
        if line is None:
            raise KeyboardInterrupt
        return line


class Interrupting(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b'data: {"choices": [{"delta": {"content": "Par"}}]}\n\n'
        raise KeyboardInterrupt


def test_models_are_listed_in_a_table(run: Run, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run({"GET v1/models": {"data": [model("a"), model("b")]}}, "list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["model", "a", "b"]


def test_models_are_listed_for_programs(run: Run, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run({"GET v1/models": {"data": [model("a", novelty=1)]}}, "list", "--json")
    assert json.loads(capsys.readouterr().out) == [model("a", novelty=1)]


def test_launching_prints_the_uid_and_tells_progress_apart(
    run: Run, sse: Any, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "POST v1/models": {"model_uid": "two"},
        "GET v1/models/two/events": sse(model("two", "loading", progress=0.5), model("two")),
    }
    assert run(answers, "launch", "xinfer-demo", "-u", "two", "-r", "2", "--n-gpu", "none", "-q", "q8_0") == 0
    printed = capsys.readouterr()
    assert printed.out == "two\n"
    assert "two is ready" in printed.err
    assert run.record.bodies[0] == {
        "model_name": "xinfer-demo",
        "model_uid": "two",
        "model_type": "LLM",
        "replica": 2,
        "quantization": "q8_0",
        "n_gpu": None,
    }


def test_a_launch_can_tell_the_engine_what_to_do(run: Run) -> None:
    run(
        {"POST v1/models": {"model_uid": "m"}},
        *("launch", "--model-path", "/m.gguf", "--no-wait", "--cache-type-k", "q8_0", "--n-gpu-layers", "-1"),
        *("--tensor-split", "2,1", "--lora", "a=/a.gguf", "--lora", "b=/b=c.gguf", "--max-sequences", "8"),
        *("--draft-model", "small.gguf", "--draft-tokens", "4", "--prefix-store-bytes", "1000"),
    )
    sent = run.record.bodies[0]
    assert (sent["cache_type_k"], sent["n_gpu_layers"], sent["tensor_split"]) == ("q8_0", -1, [2, 1])
    assert sent["lora"] == {"a": "/a.gguf", "b": "/b=c.gguf"}
    assert sent["max_sequences"] == 8
    assert (sent["draft_model"], sent["draft_tokens"]) == ("small.gguf", 4)
    assert sent["prefix_store_bytes"] == 1000
    assert "cache_type_v" not in sent


@pytest.mark.parametrize("option", ["--lora=a", "--lora==/a.gguf", "--tensor-split=a,b", "--n-gpu-layers=all"])
def test_an_engines_option_without_a_meaning_is_refused(run: Run, option: str) -> None:
    with pytest.raises(SystemExit):
        run({}, "launch", "xinfer-demo", option)


def test_a_name_may_be_given_as_an_option(run: Run) -> None:
    run({"POST v1/models": {"model_uid": "two"}}, "launch", "--model-name", "xinfer-demo", "--no-wait")
    assert run.record.bodies[0]["model_name"] == "xinfer-demo"


@pytest.mark.parametrize("command", ["terminate", "stop"])
def test_models_are_stopped(run: Run, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run({"DELETE v1/models/a": None, "DELETE v1/models/b": None}, command, "a", "b") == 0
    assert capsys.readouterr().out == "Stopped a.\nStopped b.\n"


def test_a_failure_is_one_line_on_stderr(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    body = {"error": {"message": "No model 'a' is running.", "code": "model_not_found"}}
    assert run({"DELETE v1/models/a": httpx.Response(404, json=body)}, "stop", "a") == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "jupyter xinfer: No model 'a' is running.\n")


def test_one_prompt_is_answered(run: Run, words: Any, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"GET v1/models/demo": model(), CHAT: words("Par", "is.")}
    assert run(answers, "chat", "demo", "Capital?", "--temperature", "0", "--system", "Brief.") == 0
    assert capsys.readouterr().out == "Paris.\n"
    sent = run.record.bodies[0]
    assert sent["temperature"] == 0
    assert [message["content"] for message in sent["messages"]] == ["Brief.", "Capital?"]


def test_a_prompt_may_come_through_a_pipe(run: Run, words: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Summarise\nthis."))
    run({"GET v1/models/demo": model(), CHAT: words("ok")}, "chat", "demo")
    assert run.record.bodies[0]["messages"][0]["content"] == "Summarise\nthis."


def test_without_a_name_the_only_model_answers(run: Run, words: Any, model: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi"))
    answers = {"GET v1/models": {"data": [model()]}, "GET v1/models/demo": model(), CHAT: words("ok")}
    assert run(answers, "chat") == 0


@pytest.mark.parametrize(("uids", "message"), [([], "No model is running"), (["a", "b"], "Say which")])
def test_without_a_name_there_must_be_one_model(
    run: Run, model: Any, capsys: pytest.CaptureFixture[str], uids: list[str], message: str
) -> None:
    assert run({"GET v1/models": {"data": [model(uid) for uid in uids]}}, "chat") == 1
    assert message in capsys.readouterr().err


def test_an_interrupted_prompt_keeps_its_text_and_says_so(
    run: Run, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"GET v1/models/demo": model(), CHAT: httpx.Response(200, stream=Interrupting())}
    assert run(answers, "chat", "demo", "Capital?") == 130
    assert capsys.readouterr().out == "Par (interrupted)\n"


def test_control_characters_do_not_reach_the_terminal(
    run: Run, words: Any, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run({"GET v1/models/demo": model(), CHAT: words("a\x1b[2Jb")}, "chat", "demo", "Hi")
    assert capsys.readouterr().out == "a[2Jb\n"


def test_an_interrupt_before_the_first_word_ends_the_answer_alone(
    run: Run, words: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    Keyboard(monkeypatch, "First", "Second")
    assert run({"GET v1/models/demo": model(), CHAT: [interrupt, words("two")]}, "chat", "demo") == 0
    assert [len(body["messages"]) for body in run.record.bodies] == [1, 1]


def test_a_conversation_goes_on_after_an_interrupt_and_an_error(
    run: Run, words: Any, model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Keyboard(monkeypatch, "First", None, "Second", "Third", "/clear", "Fourth")
    busy = httpx.Response(503, json={"error": {"message": "It restarts.", "code": "model_not_ready"}})
    answers = [httpx.Response(200, stream=Interrupting()), busy, words("three"), words("four")]
    assert run({"GET v1/models/demo": model(), CHAT: answers}, "chat", "demo") == 0
    sent = [[message["content"] for message in body["messages"]] for body in run.record.bodies]
    assert sent == [["First"], ["First", "Par", "Second"], ["First", "Par", "Third"], ["Fourth"]]
    assert "It restarts." in capsys.readouterr().err


def test_interrupting_a_launch_leaves_it_running(run: Run, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Stream(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield f"data: {json.dumps(model('demo', 'loading'))}\n\n".encode()
            raise KeyboardInterrupt

    answers = {
        "POST v1/models": {"model_uid": "demo"},
        "GET v1/models/demo/events": httpx.Response(200, stream=Stream()),
    }
    assert run(answers, "launch", "xinfer-demo") == 130
    assert "The launch goes on. `jupyter xinfer stop demo` ends it." in capsys.readouterr().err


def test_lines_become_vectors(
    run: Any, model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\ntwo\n"))
    data = [{"index": n, "embedding": base64.b64encode(struct.pack("<2f", n, 0.5)).decode()} for n in range(2)]
    answers = {"GET v1/models/minilm": model("minilm"), "POST v1/embeddings": {"data": data}}
    assert run(answers, "embed", "minilm", "--truncate") == 0
    assert capsys.readouterr().out == "[0.0, 0.5]\n[1.0, 0.5]\n"
    assert run.record.bodies[0]["input"] == ["one", "two"]
    assert run.record.bodies[0]["truncate_prompt_tokens"] == -1


def test_nothing_to_embed_is_said(
    run: Any, model: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert run({"GET v1/models/minilm": model("minilm")}, "embed", "minilm") == 1
    assert "no text" in capsys.readouterr().err


def test_documents_are_printed_by_their_scores(run: Any, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    results = [{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.25}]
    answers = {"GET v1/models/bge": model("bge"), "POST v1/rerank": {"results": results}}
    assert run(answers, "rerank", "bge", "a query", "first", "second") == 0
    assert capsys.readouterr().out == "0.750000\tsecond\n0.250000\tfirst\n"
