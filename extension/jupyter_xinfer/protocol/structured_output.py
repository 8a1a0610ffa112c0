"""What the caller wants the output to conform to: OpenAI's `response_format`, and the `guided_*` fields of others."""

import json
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Constraint, ConstraintKind

MAX_CHOICES = 1024
# The engine's own limits, told before a request travels.
MAX_PATTERN = 1024
MAX_GRAMMAR = 16_384
MAX_SCHEMA_DEPTH = 64


class JsonSchemaFormat(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema: dict[str, Any] | None = None
    """Of `json_object`, as llama-server and others take it."""

    def constraint(self) -> Constraint | None:
        """Raises `InvalidRequest` that names the field."""
        for name in ("json_schema", "schema"):
            if getattr(self, name) is not None and self.type != {"schema": "json_object"}.get(name, name):
                raise InvalidRequest(
                    f"`response_format.{name}` does not belong to the type {self.type!r}.",
                    param=f"response_format.{name}",
                )
        if self.type == "json_object":
            if self.schema is not None:
                return schema_constraint(self.schema, "response_format.schema")
            return Constraint(ConstraintKind.JSON_OBJECT)
        if self.type == "text":
            return None
        if self.json_schema is None:
            raise InvalidRequest(
                "`response_format.json_schema` is required for the type 'json_schema'.",
                param="response_format.json_schema",
            )
        if self.json_schema.schema is None:
            return Constraint(ConstraintKind.JSON_OBJECT)
        return schema_constraint(self.json_schema.schema, "response_format.json_schema.schema")


class GuidedFields(Struct, kw_only=True):
    """vLLM's and Xinference's fields; at most one of them, and none beside a `response_format` with a shape."""

    guided_json: dict[str, Any] | str | None = None
    guided_regex: Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN)] | None = None
    guided_choice: Annotated[list[str], Meta(min_length=1, max_length=MAX_CHOICES)] | None = None
    guided_grammar: Annotated[str, Meta(min_length=1, max_length=MAX_GRAMMAR)] | None = None


def constraint_of(body: GuidedFields, response_format: ResponseFormat | None = None) -> Constraint | None:
    """The one constraint that `body` asks for. Raises `InvalidRequest` when it asks for two, naming the second."""
    asked = _asked(body, response_format)
    if len(asked) > 1:
        first, second = asked[0][0], asked[1][0]
        raise InvalidRequest(f"`{second}` cannot be combined with `{first}`.", param=second)
    return asked[0][1] if asked else None


def constraining_field(body: GuidedFields) -> str:
    """The field that a constraint of the output came from, for refusals of engines, who do not know it."""
    guided = (name for name in GuidedFields.__struct_fields__ if getattr(body, name) is not None)
    return next(guided, "response_format")


def _asked(body: GuidedFields, response_format: ResponseFormat | None) -> list[tuple[str, Constraint]]:
    asked: list[tuple[str, Constraint]] = []
    shape = response_format.constraint() if response_format is not None else None
    if shape is not None:
        asked.append(("response_format", shape))
    if body.guided_json is not None:
        asked.append(("guided_json", schema_constraint(_as_schema(body.guided_json), "guided_json")))
    if body.guided_regex is not None:
        asked.append(("guided_regex", Constraint(ConstraintKind.REGEX, body.guided_regex)))
    if body.guided_choice is not None:
        if not all(body.guided_choice):
            raise InvalidRequest("`guided_choice` must not hold an empty string.", param="guided_choice")
        asked.append(("guided_choice", Constraint(ConstraintKind.CHOICE, body.guided_choice)))
    if body.guided_grammar is not None:
        asked.append(("guided_grammar", Constraint(ConstraintKind.GRAMMAR, body.guided_grammar)))
    return asked


def schema_constraint(schema: dict[str, Any], param: str) -> Constraint:
    """`schema` as a constraint. Raises `InvalidRequest` when it is nested too deeply to be compiled."""
    if _deeper_than(schema, MAX_SCHEMA_DEPTH):
        raise InvalidRequest(f"`{param}` is nested deeper than {MAX_SCHEMA_DEPTH} levels.", param=param)
    return Constraint(ConstraintKind.JSON_SCHEMA, schema)


def _as_schema(value: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest("`guided_json` must be a JSON schema, as an object or as its text.", param="guided_json")
    return parsed


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            item
            for holder in layer
            for item in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(item, dict | list)
        ]
        if not layer:
            return False
    return True
