"""The JSON schema that the arguments of a call are kept to, made of what the tool says of its parameters."""

from typing import Any

_ANY_OBJECT: dict[str, Any] = {"type": "object", "properties": {}}
_OPENING = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref", "if"}
)


def arguments_schema(parameters: Any, root: str = "#") -> Any:
    """The schema for arguments of a function with these `parameters`, as a part at `root`, a JSON pointer.

    What conforms to it conforms to `parameters`. Objects have no properties but those that are named, unless a schema
    says that they may: models would else invent arguments without end.
    """
    schema = _closed(_rebased(_ANY_OBJECT if parameters is None else parameters, root))
    return {"type": "object", **schema} if isinstance(schema, dict) else schema


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if isinstance(schema.get("properties"), dict):
        schema["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
        # With these, other parts of a schema may name properties too.
        if not _OPENING & schema.keys():
            schema["additionalProperties"] = False
    if "items" in schema:
        schema["items"] = _closed(schema["items"])
    return schema


def _rebased(schema: Any, root: str) -> Any:
    """`schema` with its references to itself changed to where it lies in another document."""
    if isinstance(schema, dict):
        return {
            key: root + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _rebased(value, root)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_rebased(item, root) for item in schema]
    return schema
