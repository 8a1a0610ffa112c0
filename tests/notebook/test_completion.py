"""Completion: the words themselves, and through IPython's completer."""

import threading
import time
from collections.abc import Callable

import pytest
from IPython.core.interactiveshell import InteractiveShell

from xinfer_runtime.errors import Unavailable
from xinfer_runtime.notebook.completion import CachedNames, XinferMatcher, candidates


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%xinfer l", ["launch", "list", "logs"]),
        ("  %xinfer st", ["status", "stop"]),
        ("%xinfer stop ", ["demo", "qwen:7b"]),
        ("%xinfer use q", ["qwen:7b"]),
        ("%xinfer launch xinfer-", ["xinfer-demo"]),
        ("%xinfer launch --rep", ["--replica"]),
        ("%xinfer launch xinfer-demo --no", ["--no-wait"]),
        ("%xinfer stop demo ", []),
        ("%xinfer nonsense --", []),
        ("%%xinfer ", ["demo", "qwen:7b"]),
        ("%%xinfer demo ", []),
        ("%%xinfer demo --max", ["--max-tokens"]),
        ("%%xinfer --ch", ["--chat"]),
        ("%xinfer", None),
        ("%xinferx l", None),
        ("print(l", None),
    ],
)
def test_the_words_that_fit(line: str, expected: list[str] | None) -> None:
    assert candidates(line, lambda: ["demo", "qwen:7b"], lambda: ["xinfer-demo", "other"]) == expected


@pytest.fixture
def complete(shell: InteractiveShell) -> Callable[[str], list[str]]:
    """What IPython offers at the end of a text, with the text that each would leave."""
    names = CachedNames(lambda: ["demo", "qwen:7b"], patience=5)
    shell.Completer.custom_matchers.append(XinferMatcher(names, names).matcher())

    def run(text: str) -> list[str]:
        from IPython.core.completer import provisionalcompleter

        with provisionalcompleter():
            found = list(shell.Completer.completions(text, len(text)))
        return [text[: completion.start] + completion.text for completion in found]

    return run


def test_ipython_offers_our_words_and_no_others(complete: Callable[[str], list[str]]) -> None:
    assert complete("%xinfer s") == ["%xinfer status", "%xinfer stop"]


def test_ipython_offers_options(complete: Callable[[str], list[str]]) -> None:
    assert complete("%%xinfer --te") == ["%%xinfer --temperature", "%%xinfer --template"]


def test_names_with_a_colon_are_completed(complete: Callable[[str], list[str]]) -> None:
    assert complete("%xinfer use qwen:7") == ["%xinfer use qwen:7b"]


def test_python_is_completed_as_before(complete: Callable[[str], list[str]]) -> None:
    assert "print" in complete("prin")


def test_names_are_fetched_once_in_their_lifetime() -> None:
    calls: list[int] = []
    names = CachedNames(lambda: [str(calls.append(1))], patience=5)
    assert (names.get(), names.get(), len(calls)) == (["None"], ["None"], 1)


def test_a_slow_server_does_not_hold_up_the_completion() -> None:
    release, answered = threading.Event(), threading.Event()

    def fetch() -> list[str]:
        release.wait(60)
        answered.set()
        return ["demo"]

    names = CachedNames(fetch, patience=0.05)
    assert names.get() == []
    assert not answered.is_set(), "the completion waited for the server"
    release.set()
    deadline = time.monotonic() + 30
    while names.get() != ["demo"]:
        assert time.monotonic() < deadline, "the names that came late were never offered"


def test_a_server_that_fails_leaves_the_names_known_before() -> None:
    answers = [["demo"], None]

    def fetch() -> list[str]:
        if (answer := answers.pop(0)) is None:
            raise Unavailable("down")
        return answer

    names = CachedNames(fetch, lifetime=0, patience=5)
    assert (names.get(), names.get()) == (["demo"], ["demo"])
