import io
import json
import logging
from collections.abc import Iterator

import pytest

from xinfer_runtime.logs import fields, format_as_json


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logger = logging.getLogger("xinfer.test-logs")
    logger.addHandler(logging.StreamHandler(stream))
    format_as_json(logger)
    yield stream
    logger.handlers.clear()


def test_a_line_has_the_message_and_the_fields(written: io.StringIO) -> None:
    logging.getLogger("xinfer.test-logs").warning("lost %s", "m-0", extra=fields(request_id="a", tokens=3, model=None))
    line = json.loads(written.getvalue())
    assert line.pop("time").startswith("20")
    assert line == {
        "level": "warning",
        "logger": "xinfer.test-logs",
        "message": "lost m-0",
        "request_id": "a",
        "tokens": 3,
    }


def test_whatever_is_logged_stays_on_one_line(written: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("xinfer.test-logs").exception("a message\n{}", extra=fields(odd=object()))
    [line] = written.getvalue().splitlines()
    assert "ValueError: two\nlines" in json.loads(line)["exception"]
    assert json.loads(line)["message"] == "a message\n{}"
