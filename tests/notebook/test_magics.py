"""The magics in a real IPython shell, against recorded answers."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import CapturedIO, capture_output

from xinfer_runtime.client import Client
from xinfer_runtime.errors import Conflict, ContextLengthExceeded, ModelNotFound, ReplicaLost
from xinfer_runtime.notebook.magics import XinferMagics
from xinfer_runtime.notebook.prompting import Interrupted
from xinfer_runtime.notebook.session import NotebookSession

CHAT = "POST v1/chat/completions"
Start = Callable[[dict[str, Any]], XinferMagics]


@pytest.fixture
def start(shell: InteractiveShell, recorded: Any) -> Start:
    """Loads the magics on a server of these answers; `record` is what it was asked."""

    def build(answers: dict[str, Any]) -> XinferMagics:
        record = recorded(answers)
        connect = lambda: Client("http://server/user/x/", "secret", transport=record.transport)  # noqa: E731
        magics = XinferMagics(shell, NotebookSession(connect))
        magics.record = record
        shell.register_magics(magics)
        return magics

    return build


@pytest.fixture
def words(sse: Any) -> Callable[..., httpx.Response]:
    """A streamed answer of these pieces of text."""

    def build(*texts: str, finish_reason: str = "stop") -> httpx.Response:
        pieces = [{"model": "demo", "choices": [{"delta": {"content": text}}]} for text in texts]
        end = {"choices": [{"delta": {}, "finish_reason": finish_reason}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        return sse(*pieces, end, usage)

    return build


@pytest.fixture
def rich(shell: InteractiveShell) -> Iterator[None]:
    """The shell of a kernel, where output is displayed and not printed."""
    vars(shell)["kernel"] = SimpleNamespace()
    yield
    del vars(shell)["kernel"]


def cell(shell: InteractiveShell, line: str, body: str) -> CapturedIO:
    with capture_output() as captured:
        shell.run_cell_magic("xinfer", line, body)
    return captured


def line(shell: InteractiveShell, text: str) -> CapturedIO:
    with capture_output() as captured:
        shell.run_line_magic("xinfer", text)
    return captured


def test_a_cell_is_answered_in_the_terminal(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    magics = start({"GET v1/models/demo": model(), CHAT: words("Par", "is.")})
    assert cell(shell, "demo", "Capital?\n").stdout == "Paris.\n"
    assert magics.record.bodies[0]["messages"] == [{"role": "user", "content": "Capital?"}]


def test_the_body_is_literal(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    magics = start({"GET v1/models/demo": model(), CHAT: words("ok")})
    shell.user_ns["x"] = 1
    body = "f'{x}' {{x}} $x !ls %time\n  indented"
    shell.run_cell(f"%%xinfer demo\n{body}").raise_error()
    assert magics.record.bodies[0]["messages"][0]["content"] == body


def test_options_become_sampling(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    magics = start({"GET v1/models/demo": model(), CHAT: words("ok")})
    cell(shell, '--temperature 0 --max-tokens 9 --stop END --system "Be brief." demo', "Hi")
    sent = magics.record.bodies[0]
    assert (sent["temperature"], sent["max_tokens"], sent["stop"]) == (0, 9, ["END"])
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}


def test_the_answer_is_kept_in_a_variable(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    start({"GET v1/models/demo": model(), CHAT: words("Par", "is.")})
    cell(shell, "demo -o answer", "Capital?")
    assert (shell.user_ns["answer"].text, shell.user_ns["answer"].usage.completion_tokens) == ("Paris.", 2)


def test_a_template_takes_variables(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    magics = start({"GET v1/models/demo": model(), CHAT: words("ok")})
    shell.user_ns["country"] = "France {{x}}"
    cell(shell, "demo -t", "Capital of {{ country }}? {json: 1}")
    assert magics.record.bodies[0]["messages"][0]["content"] == "Capital of France {{x}}? {json: 1}"


def test_a_template_names_the_missing_variable(shell: InteractiveShell, start: Start) -> None:
    start({})
    with pytest.raises(UsageError, match="no variable 'nobody'"):
        cell(shell, "demo -t", "{{nobody}}")


def test_without_a_name_the_only_ready_model_is_used(
    shell: InteractiveShell, start: Start, words: Any, model: Any
) -> None:
    listing = {"data": [model("a"), model("b", "loading")]}
    magics = start({"GET v1/models": listing, "GET v1/models/a": model("a"), CHAT: words("ok")})
    cell(shell, "", "Hi")
    assert magics.record.bodies[0]["model"] == "a"


def test_when_nothing_runs_the_error_says_how_to_launch(shell: InteractiveShell, start: Start) -> None:
    start({"GET v1/models": {"data": []}})
    with pytest.raises(UsageError, match="%xinfer launch xinfer-demo"):
        cell(shell, "", "Hi")


def test_when_several_run_the_error_names_them(shell: InteractiveShell, start: Start, model: Any) -> None:
    start({"GET v1/models": {"data": [model("a"), model("b")]}})
    with pytest.raises(UsageError, match=r"a, b\. Choose one: %xinfer use a"):
        cell(shell, "", "Hi")


def test_use_chooses_the_model(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    magics = start({"GET v1/models/b": model("b"), CHAT: words("ok")})
    assert "prompts b" in line(shell, "use b").stdout
    cell(shell, "", "Hi")
    assert magics.record.bodies[0]["model"] == "b"


def test_a_cell_alone_has_no_history(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    magics = start({"GET v1/models/demo": model(), CHAT: [words("one"), words("two")]})
    cell(shell, "demo", "First")
    cell(shell, "demo", "Second")
    assert len(magics.record.bodies[1]["messages"]) == 1


def test_a_conversation_goes_on_until_it_is_cleared(
    shell: InteractiveShell, start: Start, words: Any, model: Any
) -> None:
    magics = start({"GET v1/models/demo": model(), CHAT: [words("one"), words("two"), words("three")]})
    cell(shell, "demo -c", "First")
    cell(shell, "demo -c", "Second")
    line(shell, "clear")
    cell(shell, "demo -c", "Third")
    sent = [[message["content"] for message in body["messages"]] for body in magics.record.bodies]
    assert sent == [["First"], ["First", "one", "Second"], ["Third"]]


def test_a_conversation_that_is_too_long_says_how_to_start_anew(
    shell: InteractiveShell, start: Start, words: Any, model: Any
) -> None:
    body = {"error": {"message": "1100 tokens do not fit.", "code": "context_length_exceeded"}}
    start({"GET v1/models/demo": model(), CHAT: [words("one"), httpx.Response(400, json=body)]})
    cell(shell, "demo -c", "First")
    with pytest.raises(ContextLengthExceeded, match="%xinfer clear"):
        cell(shell, "demo -c", "Second")


@pytest.mark.parametrize(
    ("options", "body", "message"),
    [
        ("--temperature hot", "Hi", "--temperature: invalid float"),
        ("--bogus", "Hi", "unrecognized arguments"),
        ("'unclosed", "Hi", "Cannot read the line"),
        ("-o 1x", "Hi", "name of a variable"),
        ("demo", "  \n", "cell is empty"),
    ],
)
def test_wrong_usage_of_a_cell(shell: InteractiveShell, start: Start, options: str, body: str, message: str) -> None:
    start({})
    with pytest.raises(UsageError, match=message):
        cell(shell, options, body)


@pytest.mark.parametrize("text", ["bogus", "launch", "stop a b", "launch x --replica many"])
def test_wrong_usage_of_a_line(shell: InteractiveShell, start: Start, text: str) -> None:
    start({})
    with pytest.raises(UsageError):
        line(shell, text)


@pytest.mark.parametrize("text", ["", "help", "--help", "launch --help"])
def test_help_is_printed(shell: InteractiveShell, start: Start, text: str) -> None:
    start({})
    assert "usage: %xinfer" in line(shell, text).stdout


def test_help_of_the_cell_magic_sends_nothing(shell: InteractiveShell, start: Start) -> None:
    magics = start({})
    assert "usage: %%xinfer" in cell(shell, "--help", "Hi").stdout
    assert magics.record.requests == []


def test_launching_shows_the_progress_and_uses_the_model(
    shell: InteractiveShell, start: Start, sse: Any, model: Any
) -> None:
    events = sse(model("two", "loading", progress=0.5), model("two"))
    magics = start({"POST v1/models": {"model_uid": "two"}, "GET v1/models/two/events": events})
    printed = line(
        shell, "launch xinfer-demo --uid two -r 2 --n-gpu none --draft-model small.gguf --prefix-store-bytes 9"
    ).stdout
    assert "50%  loading" in printed
    assert "two is ready" in printed
    assert magics.session.model == "two"
    assert magics.record.bodies[0] == {
        "model_name": "xinfer-demo",
        "model_uid": "two",
        "model_type": "LLM",
        "replica": 2,
        "n_gpu": None,
        "draft_model": "small.gguf",
        "prefix_store_bytes": 9,
    }


def test_launching_what_runs_already_uses_it(shell: InteractiveShell, start: Start, sse: Any, model: Any) -> None:
    """As when a notebook is run again from the top."""
    taken = httpx.Response(409, json={"error": {"message": "in use", "code": "conflict"}})
    running = model("two", model_name="xinfer-demo", quantization="q8_0", replica=1)
    magics = start(
        {"POST v1/models": taken, "GET v1/models": {"data": [running]}, "GET v1/models/two/events": sse(running)}
    )
    assert "two is ready" in line(shell, "launch xinfer-demo --uid two -q Q8_0").stdout
    assert magics.session.model == "two"


@pytest.mark.parametrize(
    "other",
    [
        "other --uid two",
        "xinfer-demo --uid two -q f16",
        "xinfer-demo --uid two -r 2",
        "xinfer-demo --uid two --n-gpu 1",
    ],
)
def test_launching_another_model_under_a_name_in_use_is_an_error(
    shell: InteractiveShell, start: Start, model: Any, other: str
) -> None:
    taken = httpx.Response(409, json={"error": {"message": "in use", "code": "conflict"}})
    running = model("two", model_name="xinfer-demo", quantization="q8_0", replica=1)
    magics = start({"POST v1/models": taken, "GET v1/models": {"data": [running]}})
    assert type(shell.run_cell(f"%xinfer launch {other}").error_in_exec) is Conflict
    assert magics.session.model is None


def test_stopping_the_model_in_use_forgets_it(shell: InteractiveShell, start: Start, model: Any) -> None:
    magics = start({"GET v1/models/demo": model(), "DELETE v1/models/demo": None})
    line(shell, "use demo")
    assert line(shell, "stop").stdout == "Stopped demo.\n"
    assert magics.session.model is None


def test_the_history_of_a_model_is_printed(shell: InteractiveShell, start: Start) -> None:
    event = {"event_type": "ERROR", "event_ts": 0, "event_content": "died\x1b[31m"}
    start({"GET v1/models/demo/events": [[event]]})
    assert line(shell, "logs demo").stdout.endswith("ERROR   died[31m\n")


def test_errors_are_one_line_and_keep_their_class(
    shell: InteractiveShell, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"error": {"message": "No model 'x' is running.", "code": "model_not_found"}}
    start({"GET v1/models/x": httpx.Response(404, json=body)})
    result = shell.run_cell("%xinfer use x")
    assert type(result.error_in_exec) is ModelNotFound
    assert capsys.readouterr().out == "ModelNotFound: No model 'x' is running.\n"


def test_a_lost_server_is_looked_for_again(shell: InteractiveShell, start: Start) -> None:
    magics = start({"GET v1/models": [httpx.ConnectError("refused"), {"data": []}]})
    first = magics.session.client
    shell.run_cell("%xinfer list")
    assert magics.session.client is not first


def test_a_terminal_gets_no_control_characters(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    start({"GET v1/models/demo": model(), CHAT: words("a\x1b]0;title\x07b")})
    assert cell(shell, "demo", "Hi").stdout == "a]0;titleb\n"


@pytest.mark.usefixtures("rich")
def test_a_notebook_shows_one_output_that_is_updated(
    shell: InteractiveShell, start: Start, words: Any, model: Any
) -> None:
    start({"GET v1/models/demo": model(), CHAT: words("**Par", "is**", " <b>")})
    outputs = cell(shell, "demo", "Capital?")._outputs
    assert {output["transient"]["display_id"] for output in outputs} == {outputs[0]["transient"]["display_id"]}
    assert [output.get("update", False) for output in outputs] == [False] + [True] * (len(outputs) - 1)
    assert outputs[-1]["data"] == {"text/plain": "**Paris** <b>", "text/markdown": "**Paris** &lt;b>"}


@pytest.mark.usefixtures("rich")
def test_the_final_output_keeps_the_usage(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    start({"GET v1/models/demo": model(), CHAT: words("Paris.")})
    metadata = cell(shell, "demo", "Capital?")._outputs[-1]["metadata"]["xinfer"]
    assert metadata.pop("seconds") >= 0
    assert metadata == {"model": "demo", "finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 2}


@pytest.mark.usefixtures("rich")
def test_an_answer_at_the_token_limit_says_so(shell: InteractiveShell, start: Start, words: Any, model: Any) -> None:
    start({"GET v1/models/demo": model(), CHAT: words("Par", finish_reason="length")})
    assert "(cut off at the token limit)" in cell(shell, "demo", "Hi")._outputs[-1]["data"]["text/markdown"]


@pytest.mark.usefixtures("rich")
def test_tool_calls_are_shown_as_code(shell: InteractiveShell, start: Start, sse: Any, model: Any) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    start({"GET v1/models/demo": model(), CHAT: sse({"choices": [{"delta": {"tool_calls": [call]}}]})})
    shown = cell(shell, "demo", "Hi")._outputs[-1]["data"]["text/markdown"]
    assert shown == '```python\nweather({"city": "Paris"})\n```'


@pytest.mark.usefixtures("rich")
def test_an_interrupt_keeps_the_partial_answer(
    shell: InteractiveShell, start: Start, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'data: {"choices": [{"delta": {"content": "Par"}}]}\n\n'
            raise KeyboardInterrupt

    start({"GET v1/models/demo": model(), CHAT: httpx.Response(200, stream=Interrupting())})
    with capture_output() as captured, pytest.raises(Interrupted):
        shell.run_cell_magic("xinfer", "demo -c -o answer", "Capital?")
    assert captured._outputs[-1]["data"]["text/markdown"] == "Par\n\n*(interrupted)*"
    assert shell.user_ns["answer"].text == "Par"


def test_loading_the_extension_twice_registers_one_matcher(shell: InteractiveShell) -> None:
    for _ in range(2):
        shell.run_line_magic("load_ext" if _ == 0 else "reload_ext", "jupyter_xinfer")
    names = [matcher.matcher_identifier for matcher in shell.Completer.custom_matchers]
    assert names == ["xinfer"]


def test_an_interrupt_before_the_first_word_is_one_line_too(
    shell: InteractiveShell, start: Start, model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    start({"GET v1/models/demo": model(), CHAT: interrupt})
    result = shell.run_cell("%%xinfer demo\nHi")
    assert type(result.error_in_exec) is Interrupted
    assert capsys.readouterr().out.splitlines() == [
        " (interrupted)",
        "KeyboardInterrupt: the answer was interrupted; what had come is kept",
    ]


@pytest.mark.usefixtures("rich")
def test_an_answer_that_breaks_off_is_shown_and_marked(
    shell: InteractiveShell, start: Start, model: Any, sse: Any
) -> None:
    lost = {"error": {"message": "The replica is gone.", "code": "replica_lost"}}
    pieces = [{"choices": [{"delta": {"content": text}}]} for text in ("Par", "is")]
    start({"GET v1/models/demo": model(), CHAT: sse(*pieces, lost)})
    with capture_output() as captured, pytest.raises(ReplicaLost, match="is gone"):
        shell.run_cell_magic("xinfer", "demo", "Capital?")
    assert captured._outputs[-1]["data"]["text/markdown"] == "Paris\n\n*(broken off)*"
