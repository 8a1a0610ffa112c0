"""The body of a `%%xinfer` cell."""

import re
from collections.abc import Mapping
from typing import Any

from IPython.core.error import UsageError

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")


def fill_template(body: str, variables: Mapping[str, Any]) -> str:
    """`body` with `str()` of the variable in place of each `{{name}}`; other braces stay as they are.

    Raises:
        UsageError: a variable does not exist.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise UsageError(f"There is no variable {match[1]!r} for {match[0]} in the cell.")
        return str(variables[match[1]])

    return _VARIABLE.sub(value, body)


def build_messages(history: list[dict[str, Any]], prompt: str, system: str | None) -> list[dict[str, Any]]:
    """The conversation to send. A new system message takes the place of the old one."""
    if system is not None:
        rest = [message for message in history if message["role"] != "system"]
        history = [{"role": "system", "content": system}, *rest]
    return [*history, {"role": "user", "content": prompt}]
