"""A model's own chat template: Jinja from the model file, which is hostile data, rendered in a sandbox.

Templates follow the conventions of Hugging Face's `apply_chat_template`: the variables `messages`, `tools`,
`add_generation_prompt`, `bos_token` and `eos_token`, the functions `raise_exception` and `strftime_now`, loop controls,
and a `tojson` that does not escape for HTML.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError

from xinfer_runtime.chat.template_sandbox import TemplateSandbox
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import ChatMessage

_MAX_RENDERED = 16 << 20
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_RESERVED = frozenset({"messages", "tools", "bos_token", "eos_token"})


class TemplateRefusedError(Exception):
    """The template itself said, through `raise_exception`, that it cannot render these messages."""


class ChatTemplate:
    """A compiled template. Raises InvalidRequest when `source` is no template."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        self._environment = TemplateSandbox()
        self._environment.filters["tojson"] = _tojson
        self._environment.globals["raise_exception"] = _raise_exception
        self._environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = self._environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise InvalidRequest(f"The chat template in the model file does not compile: {error}") from error
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.takes_tools = "tools" in source
        self.source = source

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
        protect: Callable[[str], str] = str,
        image: str = "",
    ) -> str:
        """The prompt for `messages`. `protect` is applied to every string that comes from the request. Where an image
        belongs, there is `image`.

        Raises InvalidRequest when the template does not accept the messages or fails on them.
        """
        options = dict(options or {})
        if taken := _RESERVED & options.keys():
            raise InvalidRequest(f"template_kwargs cannot set {', '.join(sorted(taken))}", param="template_kwargs")
        shaped = [_as_template_message(message, protect, image) for message in messages]
        variables = {
            "add_generation_prompt": True,
            **{name: _protected(value, protect) for name, value in options.items()},
            "messages": shaped,
            "tools": [_protected(tool, protect) for tool in tools] or None,
            **self._tokens,
        }
        images = sum(len(message.images) for message in messages)
        try:
            rendered = self._collect(variables)
            if images and rendered.count(image) != images:
                # A template that knows images may look for them among parts, and write nothing of a plain text.
                for each, message in zip(shaped, messages, strict=True):
                    if message.images:
                        each["content"] = [{"type": "text", "text": each["content"]}]
                rendered = self._collect(variables)
            if images and rendered.count(image) != images:
                raise TemplateRefusedError("it leaves out images")
            return rendered
        except TemplateRefusedError as error:
            raise InvalidRequest(
                f"The model's chat template refused the messages: {error}", param="messages"
            ) from error
        except Exception as error:  # A template can raise anything; that is the request's failure, not the engine's.
            reason = f"{type(error).__name__}: {error}"
            raise InvalidRequest(
                f"The model's chat template failed on these messages: {reason}", param="messages"
            ) from error

    def _collect(self, variables: dict[str, Any]) -> str:
        self._environment.start_clock()
        parts: list[str] = []
        length = 0
        for part in self._template.generate(variables):
            parts.append(part)
            length += len(part)
            if length > _MAX_RENDERED:
                raise SecurityError(f"the template produced more than {_MAX_RENDERED} characters")
        return "".join(parts)


def _as_template_message(message: ChatMessage, protect: Callable[[str], str], image: str) -> dict[str, Any]:
    """A message in the shape that templates expect: empty content instead of none, arguments as an object.

    Some templates put the role between brackets to make a control token, so a role is one of those known or refused.
    """
    if message.role not in _ROLES:
        raise InvalidRequest(
            f"messages: role {message.role[:80]!r} is none of {', '.join(sorted(_ROLES))}", param="messages"
        )
    shaped: dict[str, Any] = {"role": message.role, "content": _content(message, protect, image)}
    if message.name is not None:
        shaped["name"] = protect(message.name)
    if message.tool_call_id is not None:
        shaped["tool_call_id"] = protect(message.tool_call_id)
    if message.reasoning:
        shaped["reasoning_content"] = protect(message.reasoning)
        # The name that gpt-oss' template has for it, which refuses thoughts beside a content and calls.
        if not (message.content and message.tool_calls):
            shaped["thinking"] = shaped["reasoning_content"]
    if message.tool_calls:
        shaped["tool_calls"] = [
            {
                "id": protect(call.id),
                "type": "function",
                "function": {"name": protect(call.name), "arguments": _protected(_arguments(call.arguments), protect)},
            }
            for call in message.tool_calls
        ]
    return shaped


def _content(message: ChatMessage, protect: Callable[[str], str], image: str) -> str:
    """What was said, with `image` where its images are."""
    content = message.content or ""
    cuts = [0, *(each.offset for each in message.images), len(content)]
    return image.join(protect(content[start:end]) for start, end in pairwise(cuts))


def _arguments(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _protected(value: Any, protect: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return protect(value)
    if isinstance(value, Mapping):
        return {_protected(key, protect): _protected(item, protect) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_protected(item, protect) for item in value]
    return value


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateRefusedError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
