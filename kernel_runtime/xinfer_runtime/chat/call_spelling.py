"""How a call is spelled out, for an output that is kept to it: text around the arguments, which are JSON."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CallSpelling:
    """What follows the mark that opens calls: `begin`, calls with `between` between them, and `end`.

    A call is `before`, its arguments and `after`. In `before`, `%s` is the function's name and `#` any number.
    """

    before: str
    after: str = ""
    begin: str = ""
    between: str = "\n"
    end: str = ""


_NAMED = '{"name": "%s", "arguments": '


def tagged(opening: str, closing: str) -> CallSpelling:
    """Objects with a name and arguments, each between tags of its own; without a closing one, a single one."""
    if not closing:
        return CallSpelling(_NAMED, "}")
    return CallSpelling(_NAMED, "}", "\n", f"\n{closing}\n{opening}\n", f"\n{closing}")


def listed(end: str = "") -> CallSpelling:
    """A JSON list of objects with a name and arguments."""
    return CallSpelling(_NAMED, "}", "[", ", ", f"]{end}")


LLAMA = CallSpelling('{"name": "%s", "parameters": ', "}", between="; ")
MISTRAL = CallSpelling("%s[ARGS]", between="[TOOL_CALLS]")
COMMAND = CallSpelling(
    '    {"tool_call_id": "#", "tool_name": "%s", "parameters": ', "}", "[\n", ",\n", "\n]<|END_ACTION|>"
)
CALL_LIST = CallSpelling(_NAMED, "}", "\n", "\n", "\n</tool_calls>")
KIMI = CallSpelling(
    "<|tool_call_begin|>functions.%s:#<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    between="",
    end="<|tool_calls_section_end|>",
)
# DeepSeek's marks are spelled with full-width bars and block characters.
_DEEPSEEK_END = "<｜tool▁call▁end｜>"  # noqa: RUF001
_DEEPSEEK_ENDS = "<｜tool▁calls▁end｜>"  # noqa: RUF001
DEEPSEEK_R1 = CallSpelling(
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>%s\n```json\n",  # noqa: RUF001
    f"\n```{_DEEPSEEK_END}",
    end=_DEEPSEEK_ENDS,
)
DEEPSEEK = CallSpelling(
    "<｜tool▁call▁begin｜>%s<｜tool▁sep｜>",  # noqa: RUF001
    _DEEPSEEK_END,
    between="",
    end=_DEEPSEEK_ENDS,
)
"""Since V3.1."""
