"""Reads what stands between the marks of tool calls, for each way in which families of models write it.

Every reader takes the inside of one block and returns its calls, or None when it is none: the block is text then.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from xinfer_runtime.chat.gemma_values import read_object
from xinfer_runtime.chat.tool_calls import call_of, tool_call
from xinfer_runtime.messages import ToolCall

Calls = list[ToolCall] | None

_DEEPSEEK_CALL = re.compile(
    "<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)<｜tool▁call▁end｜>",  # noqa: RUF001
    re.DOTALL,
)
_FENCED = re.compile(r"\s*([^\n`]+)\n```(?:json)?\n(.*?)\n?```\s*\Z", re.DOTALL)
_GLM_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_XML_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_XML_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_INVOKE = re.compile(r'<invoke name="([^"\n]+)">(.*?)</invoke>', re.DOTALL)
_INVOKE_PARAMETER = re.compile(r'<parameter name="([^"\n]+)">\n?(.*?)\n?</parameter>', re.DOTALL)
_KIMI_CALL = re.compile(
    r"<\|tool_call_begin\|>\s*((?:functions\.)?([\w.\-]+?)(?::\d+)?)\s*<\|tool_call_argument_begin\|>(.*?)<\|tool_call_end\|>",
    re.DOTALL,
)
_GEMMA_CALL = re.compile(r"\s*call:([\w.\-]+)(\{.*\})\s*\Z", re.DOTALL)
_MISTRAL_ID = re.compile(r"\[CALL_ID\][^\[{]*")
_MAX_PYTHON = 20_000


def _all_or_none(calls: Iterable[ToolCall | None]) -> Calls:
    found = list(calls)
    kept = [call for call in found if call is not None]
    return kept if kept and len(kept) == len(found) else None


def _value(text: str) -> Any:
    """A parameter written without JSON's quotes around strings."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_json(block: str) -> Calls:
    """Calls as JSON: a list of them, or one after the other with semicolons, commas or lines between."""
    values, rest = [], block.strip()
    while rest:
        try:
            value, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return None
        values += value if isinstance(value, list) else [value]
        rest = rest[end:].lstrip(" ;,\n")
    return _all_or_none(map(call_of, values))


def read_mistral(block: str) -> Calls:
    """A JSON list of calls; or, in newer models, `name[ARGS]{...}` with the opening tag between calls."""
    if block.lstrip().startswith("["):
        return read_json(block)
    calls: list[ToolCall | None] = []
    for part in block.split("[TOOL_CALLS]"):
        name, found, arguments = _MISTRAL_ID.sub("", part).partition("[ARGS]")
        if not found:
            brace = name.find("{")
            name, arguments = (name[:brace], name[brace:]) if brace > 0 else (name, "")
        calls.append(tool_call(name.strip(), arguments))
    return _all_or_none(calls)


def read_deepseek(block: str) -> Calls:
    """`function`, a mark, the name and fenced JSON; or, since V3.1, the name, a mark and the JSON."""
    calls = []
    for before, after in _DEEPSEEK_CALL.findall(block):
        fenced = _FENCED.match(after)
        calls.append(tool_call(*fenced.groups()) if fenced else tool_call(before.strip(), after))
    return _all_or_none(calls)


def read_glm(block: str) -> Calls:
    """A name, then keys and values in tags."""
    name = block.partition("<arg_key>")[0].strip()
    if not re.fullmatch(r"[\w.\-]+", name):
        return None
    return _all_or_none([tool_call(name, {key.strip(): _value(value) for key, value in _GLM_PAIR.findall(block)})])


def _read_tags(function: re.Pattern[str], parameter: re.Pattern[str]) -> Callable[[str], Calls]:
    def read(block: str) -> Calls:
        return _all_or_none(
            tool_call(name.strip(), {key: _value(value) for key, value in parameter.findall(inside)})
            for name, inside in function.findall(block)
        )

    return read


read_xml = _read_tags(_XML_FUNCTION, _XML_PARAMETER)
"""`<function=name><parameter=key>value</parameter></function>`."""
read_invoke = _read_tags(_INVOKE, _INVOKE_PARAMETER)
"""`<invoke name="name"><parameter name="key">value</parameter></invoke>`."""


def read_kimi(block: str) -> Calls:
    """Calls with ids of the model's own, `functions.name:0`, which its template wants back."""
    return _all_or_none(tool_call(name, arguments, id) for id, name, arguments in _KIMI_CALL.findall(block))


def read_gemma(block: str) -> Calls:
    """`call:name{key:<escape>text<escape>,number:3}`, with other quotes around texts in newer models."""
    call = _GEMMA_CALL.match(block)
    if call is None:
        return None
    arguments = read_object(call[2])
    return _all_or_none([tool_call(call[1], arguments)]) if arguments is not None else None


def read_python(block: str) -> Calls:
    """`[name(key="text", number=3), ...]`: Python's notation, of which only literals are taken. Nothing is run."""
    if len(block) > _MAX_PYTHON:
        return None
    try:
        tree = ast.parse(block.strip(), mode="eval").body
        calls = tree.elts if isinstance(tree, ast.List) else [tree]
        return _all_or_none(map(_python_call, calls))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _python_call(node: ast.expr) -> ToolCall | None:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return None
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        return None
    arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    try:
        return tool_call(ast.unparse(node.func), arguments)
    except TypeError:  # A literal that JSON has no word for, such as a set.
        return None
