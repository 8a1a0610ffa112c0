"""How families of models write tool calls, and which of them a chat template asks for."""

import json
import re
from typing import Any

from xinfer_runtime.chat.tool_calls import CLOSE, HERMES, OPEN, ToolFormat, call_of, tool_call
from xinfer_runtime.messages import ToolCall

# DeepSeek's marks are spelled with full-width bars and block characters.
_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")  # noqa: RUF001
_DEEPSEEK_CALL = re.compile(
    "<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)<｜tool▁call▁end｜>",  # noqa: RUF001
    re.DOTALL,
)
_FENCED = re.compile(r"\s*([^\n`]+)\n```(?:json)?\n(.*?)\n?```\s*\Z", re.DOTALL)
_GLM_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_XML_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_XML_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_GEMMA_CALL = re.compile(r"\s*call:([\w.\-]+)\{(.*)\}\s*\Z", re.DOTALL)
_GEMMA_PAIR = re.compile(r"([\w\-]+):(?:<escape>(.*?)<escape>|([^,{}\[\]]*))(?:,|\Z)", re.DOTALL)
_MISTRAL_ID = re.compile(r"\[CALL_ID\][^\[{]*")

Calls = list[ToolCall] | None


def _all_or_none(calls: list[ToolCall | None]) -> Calls:
    found = [call for call in calls if call is not None]
    return found if found and len(found) == len(calls) else None


def _value(text: str) -> Any:
    """A parameter written without JSON's quotes around strings."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _llama(block: str) -> Calls:
    """One object, or several with semicolons between them."""
    values, rest = [], block.strip()
    while rest:
        try:
            value, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return None
        values.append(call_of(value))
        rest = rest[end:].lstrip(" ;\n")
    return _all_or_none(values)


def _mistral(block: str) -> Calls:
    """A JSON list of calls; or, in newer models, `name[ARGS]{...}` with the opening tag between calls."""
    if block.lstrip().startswith("["):
        try:
            values = json.loads(block)
        except (ValueError, RecursionError):
            return None
        return _all_or_none([call_of(value) for value in values])
    calls: list[ToolCall | None] = []
    for part in block.split("[TOOL_CALLS]"):
        name, found, arguments = _MISTRAL_ID.sub("", part).partition("[ARGS]")
        if not found:
            brace = name.find("{")
            name, arguments = (name[:brace], name[brace:]) if brace > 0 else (name, "")
        calls.append(tool_call(name.strip(), arguments))
    return _all_or_none(calls)


def _deepseek(block: str) -> Calls:
    """`function`, a mark, the name and fenced JSON; or, since V3.1, the name, a mark and the JSON."""
    calls = []
    for before, after in _DEEPSEEK_CALL.findall(block):
        fenced = _FENCED.match(after)
        calls.append(tool_call(*fenced.groups()) if fenced else tool_call(before.strip(), after))
    return _all_or_none(calls)


def _glm(block: str) -> Calls:
    name = block.partition("<arg_key>")[0].strip()
    if not re.fullmatch(r"[\w.\-]+", name):
        return None
    return _all_or_none([tool_call(name, {key.strip(): _value(value) for key, value in _GLM_PAIR.findall(block)})])


def _xml(block: str) -> Calls:
    return _all_or_none(
        [
            tool_call(name.strip(), {key: _value(value) for key, value in _XML_PARAMETER.findall(inside)})
            for name, inside in _XML_FUNCTION.findall(block)
        ]
    )


def _gemma(block: str) -> Calls:
    """`call:name{key:<escape>text<escape>,number:3}`."""
    call = _GEMMA_CALL.match(block)
    if call is None:
        return None
    pairs = {m[1]: m[2] if m[2] is not None else _value(m[3]) for m in _GEMMA_PAIR.finditer(call[2])}
    return _all_or_none([tool_call(call[1], pairs)])


LLAMA = ToolFormat("<|python_tag|>", "", _llama, bare=True)
MISTRAL = ToolFormat("[TOOL_CALLS]", "", _mistral)
DEEPSEEK = ToolFormat(*_DEEPSEEK, _deepseek)
GLM = ToolFormat(OPEN, CLOSE, _glm)
QWEN_CODER = ToolFormat(OPEN, CLOSE, _xml)
GEMMA = ToolFormat("<start_function_call>", "<end_function_call>", _gemma)

# The first whose mark is in the template: later ones are found in templates of earlier families too.
_BY_MARK: tuple[tuple[str, ToolFormat], ...] = (
    (_DEEPSEEK[0], DEEPSEEK),
    ("[TOOL_CALLS]", MISTRAL),
    ("<start_function_call>", GEMMA),
    ("<arg_key>", GLM),
    ("<function=", QWEN_CODER),
    (OPEN, HERMES),
    ("<|python_tag|>", LLAMA),
    ("<|start_header_id|>", LLAMA),
)


def tool_format(template: str) -> ToolFormat:
    """The format that the chat template `template` shows its model; Hermes' where it shows none."""
    return next((format for mark, format in _BY_MARK if mark in template), HERMES)
