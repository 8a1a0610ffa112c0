"""How our processes log: lines for people, or one JSON object a line where `XINFER_LOG_FORMAT` is `json`."""

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

FORMAT_VARIABLE: Final = "XINFER_LOG_FORMAT"
JSON: Final = "json"
TEXT: Final = "text"
FORMATS: Final = (TEXT, JSON)

_LINE = "%(asctime)s %(name)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, the `fields` of the call, and an exception's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def fields(**values: object) -> dict[str, object]:
    """For `extra` of a call to a logger: what JSON lines have beside the message. None is left out.

    Names, numbers and ids: nothing that a user wrote or a model said, and no secret.
    """
    return {"fields": {name: value for name, value in values.items() if value is not None}}


def wants_json() -> bool:
    return os.environ.get(FORMAT_VARIABLE) == JSON


def log_to_stderr() -> None:
    """For processes that are ours from their beginning; of those of others, handlers are left as they are."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=_LINE)
    if wants_json():
        known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
        format_as_json(*(logger for logger in known if isinstance(logger, logging.Logger)))


def format_as_json(*loggers: logging.Logger) -> None:
    """Have these loggers' handlers, Dask's for instance, write JSON."""
    for logger in loggers:
        for handler in logger.handlers:
            handler.setFormatter(JsonFormatter())
