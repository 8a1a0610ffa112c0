"""From a constraint to the grammar that llguidance compiles, within limits: schemas and grammars come from strangers.

llguidance descends recursively into references and rules, and a chain of some 3,000 overflows the stack, which would
end the process; repeated optional parts of an expression cost quadratic time. The limits stay far below both.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from llguidance.gbnf_to_lark import any_to_lark

from xinfer_runtime.chat.argument_schema import arguments_schema
from xinfer_runtime.chat.tool_calls import CLOSE, OPEN
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Constraint, ConstraintKind

PARAM = "response_format"
"""The field that errors name."""

MAX_SCHEMA_BYTES = 128 << 10
MAX_SCHEMA_DEPTH = 100
"""Levels of lists and objects, which is about half as many levels of what the schema describes."""
MAX_REFERENCES = 500
MAX_EXPRESSION = 1024
"""Characters of one regular expression."""
MAX_GRAMMAR = 16 << 10
"""Characters of a Lark or GBNF grammar, without its lines that hold a JSON schema, which count as schemas."""
MAX_LINES = 1000
"""Lines of a grammar, so rules: each begins a line."""
MAX_LITERAL = 4096
"""Characters of a text in a grammar, which can be a pattern of a schema."""
MAX_CHOICES = 4096
MAX_CHOICES_BYTES = 128 << 10

# Where only one text can come, any tokens that spell it are allowed: the model knows best which are usual.
OPTIONS = '%llguidance {"no_forcing": true}\n'
_JSON_OPTIONS = {
    # At most one blank, or one line break with its indentation: models that may would write white space without end.
    "whitespace_pattern": r" ?|\n[ \t]{0,40}",
    "whitespace_flexible": True,
    # One spelling for every character, or an escape would hide a property from its schema: {"\u0061": ...} for "a".
    "json_allowed_escapes": '"\\bfnrt',
    "json_allow_general_unicode_escapes": False,
    # A schema that cannot be enforced in full is refused.
    "lenient": False,
    "coerce_one_of": False,
    "item_separator": ",",
    "key_separator": ":",
}

_LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|(?://|#)[^\n]*|/(?:\\.|[^/\\\n])+/')
"""The texts, comments and expressions of a Lark grammar."""
_REFERENCE = re.compile(r"\$ref|\\u00(?:24|72|65|66)")
"""A reference in a schema as text, however its letters are escaped."""
_UNSPELLABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
"""What llguidance writes only as an escape that the options above rule out; it would leave it out in silence."""


def grammar_of(constraint: Constraint, tools: Sequence[dict[str, Any]] = ()) -> str:
    """The grammar, as llguidance's JSON text. `tools` are functions that may be called in place of an answer, in the
    model's own `<tool_call>` blocks; a GRAMMAR is taken as the whole output instead.

    Raises InvalidRequest for what is not of the constraint's kind, or beyond the limits. Whether it can be compiled is
    for the compiler to say.
    """
    parts = [{"name": "answer", **_answer(constraint)}]
    rules = "start: @answer\n"
    if tools and constraint.kind is not ConstraintKind.GRAMMAR:
        calls = [_call_schema(tool.get("function", {}), f"#/anyOf/{i}") for i, tool in enumerate(tools)]
        parts.append({"name": "call", **schema_grammar({"anyOf": calls})})
        block = f"{json.dumps(OPEN)} /\\n?/ @call /\\n?/ {json.dumps(CLOSE)} /\\n?/"
        rules = f"start: @answer | call+\ncall: {block}\n"
    return json.dumps({"grammars": [{"lark_grammar": OPTIONS + rules}, *parts]})


def _answer(constraint: Constraint) -> dict[str, Any]:
    value = constraint.value
    match constraint.kind:
        case ConstraintKind.JSON_OBJECT:
            return schema_grammar({"type": "object"})
        case ConstraintKind.JSON_SCHEMA:
            return schema_grammar(value)
        case ConstraintKind.REGEX:
            return {"lark_grammar": f"start: {_expression(value)}"}
        case ConstraintKind.CHOICE:
            return {"lark_grammar": f"start: {_choices(value)}"}
        case ConstraintKind.GRAMMAR:
            return {"lark_grammar": _grammar(value)}


def schema_grammar(schema: Any) -> dict[str, Any]:
    """The grammar of JSON that validates against the schema, as one of those that llguidance takes.

    Raises InvalidRequest for a schema beyond the limits.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise InvalidRequest(f"A JSON schema is an object, not {type(schema).__name__}", param=PARAM)
    check_schema(schema)
    return {"json_schema": {**schema, "x-guidance": _JSON_OPTIONS}}


def check_schema(schema: dict[str, Any]) -> None:
    """Raise InvalidRequest for a schema beyond the limits. Without recursion: the depth is what is being checked."""
    references = 0
    level: list[Any] = [schema]
    for _depth in range(MAX_SCHEMA_DEPTH):
        for part in level:
            if isinstance(part, dict):
                references += "$ref" in part
                _check_keywords(part)
            for text in (*_keys(part), part):
                if isinstance(text, str) and _UNSPELLABLE.search(text):
                    raise InvalidRequest(f"The JSON schema has a control character in {text[:50]!r}", param=PARAM)
        level = [child for part in level for child in _children(part)]
        if not level:
            break
    else:
        raise InvalidRequest(f"The JSON schema is nested more than {MAX_SCHEMA_DEPTH} levels deep", param=PARAM)
    if references > MAX_REFERENCES:
        raise InvalidRequest(f"The JSON schema has {references} references; {MAX_REFERENCES} are the most", param=PARAM)
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"The JSON schema is no JSON: {error}", param=PARAM) from error
    if size > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"The JSON schema has {size} bytes; {MAX_SCHEMA_BYTES} are the most", param=PARAM)


def _children(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from part.values()
    elif isinstance(part, list):
        yield from part


def _check_keywords(schema: dict[str, Any]) -> None:
    patterns = [schema.get("pattern"), *_keys(schema.get("patternProperties"))]
    if any(isinstance(pattern, str) and len(pattern) > MAX_EXPRESSION for pattern in patterns):
        raise InvalidRequest(
            f"A pattern in the JSON schema is longer than {MAX_EXPRESSION} characters, which are the most", param=PARAM
        )
    least = schema.get("minProperties")
    required = schema.get("required")
    if isinstance(least, int) and least > max(1, len(required) if isinstance(required, list) else 0):
        # The grammar counts a property that comes twice as two.
        raise InvalidRequest(
            f"minProperties {least} cannot be enforced; list the properties under required instead", param=PARAM
        )


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else []


def _expression(value: Any) -> str:
    """The expression as Lark writes it: between slashes, in which only slashes and line breaks need an escape."""
    if not isinstance(value, str) or not value:
        raise InvalidRequest("A regular expression is a text that is not empty", param=PARAM)
    if len(value) > MAX_EXPRESSION:
        raise InvalidRequest(
            f"The regular expression has {len(value)} characters; {MAX_EXPRESSION} are the most", param=PARAM
        )
    escaped = re.sub(r"\\.|/|\n", lambda found: {"/": r"\/", "\n": r"\n"}.get(found[0], found[0]), value, flags=re.S)
    return f"/{escaped}/"


def _choices(value: Any) -> str:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, str) for each in value):
        raise InvalidRequest("A choice is a list of at least one text", param=PARAM)
    texts = list(dict.fromkeys(value))
    size = sum(map(len, texts))
    if len(texts) > MAX_CHOICES or size > MAX_CHOICES_BYTES:
        raise InvalidRequest(
            f"{len(texts)} choices with {size} characters: {MAX_CHOICES} with {MAX_CHOICES_BYTES} are the most",
            param=PARAM,
        )
    # Lark strings are JSON strings.
    return " | ".join(json.dumps(text) for text in texts)


def _grammar(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest("A grammar is a text that is not empty", param=PARAM)
    lines = value.splitlines()
    schemas = sum(len(line) for line in lines if "%json" in line)
    if len(value) - schemas > MAX_GRAMMAR or len(lines) > MAX_LINES:
        raise InvalidRequest(
            f"The grammar has {len(value) - schemas} characters in {len(lines)} lines; {MAX_GRAMMAR} in {MAX_LINES} "
            "are the most",
            param=PARAM,
        )
    if schemas > MAX_SCHEMA_BYTES or len(_REFERENCE.findall(value)) > MAX_REFERENCES:
        raise InvalidRequest(
            f"The JSON schemas in the grammar have {schemas} bytes; {MAX_SCHEMA_BYTES} with {MAX_REFERENCES} "
            "references are the most",
            param=PARAM,
        )
    for literal in _LITERAL.findall(value):
        most = MAX_EXPRESSION if literal.startswith("/") else MAX_LITERAL
        if len(literal) > most and not literal.startswith(("//", "#")):
            raise InvalidRequest(
                f"The grammar has a literal of {len(literal)} characters; {most} are the most", param=PARAM
            )
    try:
        lark = any_to_lark(value)
    except Exception as error:  # The library raises nothing narrower for a rule that is missing.
        raise InvalidRequest(f"The grammar is neither Lark nor GBNF: {error}", param=PARAM) from error
    if lark.count("\n") > 2 * MAX_LINES:
        raise InvalidRequest(f"The grammar has {lark.count(chr(10))} rules, which are too many", param=PARAM)
    return lark


def _call_schema(function: dict[str, Any], root: str) -> dict[str, Any]:
    """The schema of a call of this function, as a part at `root`. Where it is strict, its parameters are enforced."""
    arguments: Any = {"type": "object"}
    if function.get("strict"):
        parameters = function.get("parameters")
        check_schema(parameters if isinstance(parameters, dict) else {})
        arguments = arguments_schema(parameters, f"{root}/properties/arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": function.get("name")}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
