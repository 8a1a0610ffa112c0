"""Errors of magics in one line: the stack of a magic tells its user nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from xinfer_runtime.client.printable import printable
from xinfer_runtime.errors import XinferError


def make_brief(error: BaseException, text: str) -> None:
    """Lets IPython show `text` in place of the traceback of `error`."""
    vars(error)["_render_traceback_"] = lambda: [printable(text)]


@contextmanager
def brief_errors() -> Iterator[None]:
    try:
        yield
    except XinferError as error:
        make_brief(error, f"{type(error).__name__}: {error.message}")
        raise
