"""What is told of a process that ended: no stack, and no folder."""

import traceback

import pytest

from xinfer_runtime.cluster.last_words import last_words, without_folders


def test_of_a_traceback_what_was_raised_is_left() -> None:
    try:
        open("/nowhere/at all/model.gguf").close()
    except OSError:
        text = f"loading ...\n{traceback.format_exc()}"

    said = last_words(text)
    assert said.startswith("loading ... | FileNotFoundError: [Errno 2] No such file or directory:")
    assert "Traceback" not in said
    assert "File" not in said.removeprefix("loading ... | FileNotFoundError")
    assert "/nowhere" not in said


def test_a_stack_that_is_cut_off_at_its_beginning_is_none_either() -> None:
    assert last_words('  File "/usr/lib/a.py", line 3, in load\n    load(path)\nValueError: no') == "ValueError: no"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cannot open '/srv/models/a.gguf': no", "cannot open 'a.gguf': no"),
        ("~/models/a.gguf, /b/c.gguf", "a.gguf, c.gguf"),
        ("see https://example.org/a/b/c", "see https://example.org/a/b/c"),
        ("either/or 3/4 tokens/s", "either/or 3/4 tokens/s"),
    ],
)
def test_files_are_told_by_their_names(text: str, told: str) -> None:
    assert without_folders(text) == told
