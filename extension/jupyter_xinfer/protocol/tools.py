"""Tools that a caller offers, and the constraint that makes a model call one where the caller insists.

Without insistence the model calls as it was trained to, and the replica's parser for its family reads that. Where a
call is required, the output is one JSON object per line, `{"name": ..., "arguments": {...}}`, whatever the family:
`forced_calls.py` reads it.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from xinfer_runtime.chat.argument_schema import arguments_schema
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Constraint, ConstraintKind

MAX_TOOLS = 128
MAX_CALLS = 16
"""Calls of one answer, where calls are required."""
# One way to write white space, or some models would write it without end; refuse what cannot be enforced.
_JSON_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}
_ARGUMENTS = "#/properties/arguments"
_ANY_OBJECT: dict[str, Any] = {"type": "object", "properties": {}}


class FunctionTool(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def as_template_tool(self) -> dict[str, Any]:
        function: dict[str, Any] = {
            "name": self.name,
            "description": self.description or "",
            "parameters": self.parameters or _ANY_OBJECT,
        }
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    def call_schema(self) -> dict[str, Any]:
        """The JSON schema of one call of this function."""
        return {
            "type": "object",
            "properties": {"name": {"const": self.name}, "arguments": arguments_schema(self.parameters, _ARGUMENTS)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }


class Tool(Struct):
    type: Literal["function"]
    function: FunctionTool


class NamedFunction(Struct):
    name: str


class NamedChoice(Struct, tag_field="type", tag="function"):
    function: NamedFunction


class AllowedTool(Struct):
    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Struct):
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Meta(min_length=1)]


class AllowedChoice(Struct, tag_field="type", tag="allowed_tools"):
    """Some of the tools, in place of all of them."""

    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedChoice | AllowedChoice


class OfferedTools(Struct, frozen=True):
    """What a replica is told: the tools for the template, and what the output must be where a call is required."""

    functions: tuple[FunctionTool, ...] = ()
    constraint: Constraint | None = None

    @property
    def for_template(self) -> tuple[dict[str, Any], ...]:
        return tuple(function.as_template_tool() for function in self.functions)


def offered_tools(tools: Sequence[Tool] | None, choice: ToolChoice | None, parallel: bool | None) -> OfferedTools:
    """What `tools`, `tool_choice` and `parallel_tool_calls` mean. Raises `InvalidRequest` that names the field."""
    if not tools:
        if choice is not None and choice != "none":
            raise InvalidRequest("`tool_choice` is only allowed together with `tools`.", param="tool_choice")
        return OfferedTools()
    if len(tools) > MAX_TOOLS:
        raise InvalidRequest(f"`tools` takes at most {MAX_TOOLS} tools.", param="tools")
    functions = tuple(tool.function for tool in tools)
    if choice == "none":
        return OfferedTools()
    if isinstance(choice, NamedChoice):
        [named] = _chosen(functions, [choice.function.name])
        return OfferedTools(functions, Constraint(ConstraintKind.JSON_SCHEMA, named.call_schema()))
    if isinstance(choice, AllowedChoice):
        functions = _chosen(functions, [tool.function.name for tool in choice.allowed_tools.tools])
        choice = choice.allowed_tools.mode
    if choice == "required":
        # One call, unless several were asked for in so many words: the form is none that models were trained on, so
        # that many would not know when to stop.
        return OfferedTools(functions, _one_or_more(functions, several=parallel is True))
    return OfferedTools(functions)


def _chosen(functions: Sequence[FunctionTool], names: Sequence[str]) -> tuple[FunctionTool, ...]:
    """The functions of these names. Raises `InvalidRequest` for a name that none has."""
    by_name = {function.name: function for function in functions}
    for name in names:
        if name not in by_name:
            raise InvalidRequest(f"`tool_choice` names {name!r}, which is not among `tools`.", param="tool_choice")
    return tuple(by_name[name] for name in dict.fromkeys(names))


def _one_or_more(functions: Sequence[FunctionTool], *, several: bool) -> Constraint:
    """Calls of any of `functions`, one per line where there may be `several`, as a grammar in Lark's notation."""
    rules = [
        f"call_{i}: %json {json.dumps({**function.call_schema(), 'x-guidance': _JSON_OPTIONS})}"
        for i, function in enumerate(functions)
    ]
    any_call = " | ".join(f"call_{i}" for i in range(len(functions)))
    start = f'start: call ("\\n" call){{0,{MAX_CALLS - 1}}}' if several else "start: call"
    return Constraint(ConstraintKind.GRAMMAR, "\n".join([start, f"call: {any_call}", *rules]))
