"""Rendering of conversations with the model's own chat template, in a sandbox as every renderer should."""

import functools
import json
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


def template_source() -> str:
    """The template as it goes into the GGUF file."""
    return TEMPLATE_FILE.read_text(encoding="utf-8").rstrip("\n")


@functools.cache
def _template() -> Template:
    environment = ImmutableSandboxedEnvironment(keep_trailing_newline=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template_source())


def render(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, *, add_generation_prompt: bool = False
) -> str:
    """The text that the model reads for these messages."""
    return _template().render(messages=messages, tools=tools or None, add_generation_prompt=add_generation_prompt)
