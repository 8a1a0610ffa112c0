"""From a request to the token ids of its prompt."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xinfer_runtime.chat.control_guard import ControlGuard
from xinfer_runtime.chat.described_tools import with_described_tools
from xinfer_runtime.chat.template import ChatTemplate
from xinfer_runtime.engines.llama_cpp.image_rows import SeenImage, is_token
from xinfer_runtime.engines.llama_cpp.vocabulary import Vocabulary
from xinfer_runtime.errors import ContextLengthExceeded, InvalidRequest
from xinfer_runtime.messages import ChatMessage, Delta, FinishReason, GenerateRequest, Tokenization


class PromptBuilder:
    """Renders and tokenizes prompts. Safe in a thread of its own; every failure is the request's own error. `sees` says
    whether the model takes images; those of a request are given as they were seen, in their order.

    Each template is what the model file has, or the reason why there is none that works; `tool_template` is one for
    requests with tools, where the file has a second.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: ChatTemplate | str,
        tool_template: ChatTemplate | str,
        context_length: int,
        sees: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._tool_template = tool_template
        self._context_length = context_length
        self._sees = sees
        self._guard = ControlGuard(vocabulary.control_texts)

    def build(self, request: GenerateRequest, images: Sequence[SeenImage] = ()) -> list[int]:
        """The prompt's ids, of tokens and of the rows of images, at least one and fewer than the context holds.

        Raises InvalidRequest, or ContextLengthExceeded with both numbers.
        """
        tokens = self._tokens(request, images)
        if not tokens:
            # Without a token there is nothing to compute logits from: begin a text, as an empty prompt asks for.
            start = next((t for t in (self._vocabulary.bos, self._vocabulary.eos) if t >= 0), None)
            if start is None:
                raise InvalidRequest("The prompt is empty, and this model has no token to begin a text with")
            tokens = [start]
        if len(tokens) >= self._context_length:
            raise self._too_long(str(len(tokens)), request)
        if len(tokens) + len(request.resume) > self._context_length:
            raise InvalidRequest(
                f"resume: {len(request.resume)} tokens after a prompt of {len(tokens)} are more than the context of "
                f"{self._context_length}",
                param="resume",
            )
        return tokens

    def check_images(self, request: GenerateRequest, images: Sequence[SeenImage]) -> None:
        """Raise for a request whose images alone are more than the context holds."""
        length = sum(len(image.ids) for image in images)
        if length >= self._context_length:
            raise self._too_long(f"at least {length}", request)

    def tokenization(self, request: GenerateRequest, images: Sequence[SeenImage] = ()) -> Delta:
        """The answer to a request for a prompt's tokens; -1 stands for a row of an image. The context does not bound
        them.
        """
        tokens = [token if is_token(token) else -1 for token in self._tokens(request, images)]
        pieces = tuple(self._vocabulary.spelling(token) if token >= 0 else b"" for token in tokens)
        return Delta(request.id, token_ids=tuple(tokens), finish_reason=FinishReason.STOP, pieces=pieces)

    def detokenization(self, request: GenerateRequest) -> Delta:
        """The answer to a request for the text of token ids, control tokens included."""
        self._check(request.token_ids or (), "token_ids")
        pieces = tuple(map(self._vocabulary.spelling, request.token_ids or ()))
        text = b"".join(pieces).decode("utf-8", errors="replace")
        return Delta(request.id, text, finish_reason=FinishReason.STOP, pieces=pieces)

    def _tokens(self, request: GenerateRequest, images: Sequence[SeenImage]) -> list[int]:
        self._check(request.resume, "resume")
        self._check(request.sampling.logit_bias, "logit_bias")
        if request.token_ids is not None:
            self._check(request.token_ids, "token_ids")
            return list(request.token_ids)
        if request.prompt is not None:
            if request.suffix is not None:
                return self._infill(request.prompt, request.suffix, request)
            # The caller writes the whole prompt here, control tokens included; nobody else's turn can be forged.
            return self._tokenize([request.prompt], request)
        if request.messages is not None:
            return self._chat(request, images)
        raise InvalidRequest("One of messages, prompt and token_ids is needed")

    def _chat(self, request: GenerateRequest, images: Sequence[SeenImage]) -> list[int]:
        for_tools = bool(request.tools) and isinstance(self._tool_template, ChatTemplate)
        template = self._tool_template if for_tools else self._template
        if isinstance(template, str):
            raise InvalidRequest(f"This model cannot chat: {template}. Use completions instead.", param="messages")
        messages: Sequence[ChatMessage] = request.messages or ()
        if not self._sees and any(message.images for message in messages):
            raise InvalidRequest("This model takes text only.", param="messages")
        tools = tuple(map(_as_learned, request.tools))
        if not template.takes_tools and (tools or any(m.tool_calls or m.role == "tool" for m in messages)):
            messages, tools = with_described_tools(messages, tools), ()
        shown = [
            [
                m.role,
                m.content,
                m.reasoning,
                m.name,
                m.tool_call_id,
                [[c.id, c.name, c.arguments] for c in m.tool_calls],
            ]
            for m in messages
        ]
        marked = self._guard.begin(_strings([shown, tools, request.template_kwargs]))
        rendered = template.render(messages, tools, request.template_kwargs, marked.protect, marked.image)
        if not images:
            return self._tokenize(marked.segments(rendered), request)
        before, *texts = rendered.split(marked.image)
        self._refuse_hopeless([before, *texts], request)
        wanted = request.tokenize or Tokenization()
        tokenize = self._vocabulary.tokenize
        ids = tokenize(marked.segments(before), wanted.control, begin=False)
        for image, text in zip(images, texts, strict=True):
            ids += image.ids + tokenize(marked.segments(text), wanted.control, begin=False)
        return self._vocabulary.begun(ids) if wanted.begin else ids

    def _infill(self, prefix: str, suffix: str, request: GenerateRequest) -> list[int]:
        before, after, between = self._vocabulary.infill
        if min(before, after, between) < 0:
            raise InvalidRequest(
                "This model cannot fill in text before a suffix: its vocabulary has no tokens for that.", param="suffix"
            )
        self._refuse_hopeless([prefix, suffix], request)
        tokens = self._vocabulary.tokens_of
        return self._vocabulary.begun([before, *tokens(prefix), after, *tokens(suffix), between])

    def _tokenize(self, segments: Sequence[str], request: GenerateRequest) -> list[int]:
        self._refuse_hopeless(segments, request)
        wanted = request.tokenize or Tokenization()
        return self._vocabulary.tokenize(segments, wanted.control, begin=wanted.begin)

    def _refuse_hopeless(self, segments: Sequence[str], request: GenerateRequest) -> None:
        # Megabytes that cannot fit are not worth the seconds of tokenizing them, in which nobody else is prepared.
        least = sum(map(len, segments)) // self._vocabulary.longest_token
        if least > self._context_length:
            raise self._too_long(f"at least {least}", request)

    def _too_long(self, tokens: str, request: GenerateRequest) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"The prompt has {tokens} tokens, and the context of this model holds {self._context_length}, at least one "
            "of them for the answer. Shorten the prompt, or launch the model with a larger context_length.",
            param=next(name for name in ("messages", "prompt", "token_ids") if getattr(request, name) is not None),
        )

    def _check(self, tokens: Iterable[int], param: str) -> None:
        for token in tokens:
            if not 0 <= token < self._vocabulary.size:
                raise InvalidRequest(
                    f"{param}: {token} is no token of this model (0 to {self._vocabulary.size - 1})", param=param
                )


def _as_learned(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as models know tools: `strict` is for the grammar."""
    function = tool.get("function")
    if not isinstance(function, dict) or "strict" not in function:
        return tool
    return {**tool, "function": {name: value for name, value in function.items() if name != "strict"}}


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON-like value, and in the JSON text of tool call arguments once it is read."""
    if isinstance(value, str):
        yield value
        if "\\u" in value:  # Arguments are JSON text, in which a character can hide as an escape.
            yield _unescaped(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _unescaped(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""
