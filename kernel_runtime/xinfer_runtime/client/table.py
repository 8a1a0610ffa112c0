"""Tables of models, as text and as HTML. Every value is escaped: names and messages come from outside."""

from collections.abc import Sequence
from html import escape

from xinfer_runtime.client.description import ModelDescription
from xinfer_runtime.client.printable import printable

_HEADINGS: tuple[str, ...] = (
    "model",
    "state",
    "engine",
    "format",
    "context",
    "memory",
    "replicas",
    "running",
    "tokens/s",
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_NOTHING = "No model is running. Launch one with %xinfer launch xinfer-demo, or client.launch_model('xinfer-demo')."


def format_bytes(size: float) -> str:
    """A size for people, in binary units."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 10 else f"{size:.1f} {_UNITS[unit]}"


def describe_state(model: ModelDescription) -> str:
    """The state, with progress while the model comes up and the reason when it failed."""
    if model.state == "failed" and model.message:
        return f"failed: {printable(model.message)}"
    if model.state in ("placing", "downloading", "loading"):
        return f"{model.state} {model.progress:.0%}"
    return model.state


def table_row(model: ModelDescription, state: str) -> tuple[str, ...]:
    """The cells of `model`; `state` is what to show of that."""
    weights = " ".join(part for part in (model.model_format, model.quantization) if part)
    return (
        printable(model.model_uid),
        state,
        model.model_engine or "",
        weights,
        str(model.context_length or ""),
        format_bytes(model.memory_bytes) if model.memory_bytes else "",
        f"{model.ready_replicas}/{model.replica}",
        str(model.running + model.waiting),
        f"{model.tokens_per_second:.1f}",
    )


def text_table(models: Sequence[ModelDescription]) -> str:
    """The reasons of failures are whole, beneath the table: in a cell they would push the others off the screen."""
    if not models:
        return _NOTHING
    rows = [_HEADINGS]
    reasons: list[str] = []
    for model in models:
        state = described = describe_state(model)
        if model.state == "failed" and model.message:
            state = "failed"
            reasons += "", f"{printable(model.model_uid)} {described}"
        rows.append(table_row(model, state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([*("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), *reasons])


def html_table(models: Sequence[ModelDescription]) -> str:
    if not models:
        return f"<p>{escape(_NOTHING)}</p>"
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    rows = [table_row(model, describe_state(model)) for model in models]
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
