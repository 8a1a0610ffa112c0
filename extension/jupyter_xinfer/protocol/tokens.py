"""Texts to tokens and back: the bodies of vLLM's and llama-server's `/tokenize` and `/detokenize`.

The two differ in how they call the text, `prompt` and `content`, and in what comes back. Whoever sends `content` gets
llama-server's answer.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from jupyter_xinfer.protocol.chat_messages import MAX_MESSAGES, Message
from jupyter_xinfer.protocol.sampling_fields import TokenId
from jupyter_xinfer.protocol.tools import Tool
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Delta, GenerateRequest, Tokenization


class TokenizeRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """One of `prompt`, `messages` and `content` is needed. Messages are rendered with the model's chat template."""

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool = False
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    content: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False

    def request(self, request_id: str) -> GenerateRequest:
        """The replica's request. Raises `InvalidRequest` that names the field."""
        given = [name for name in ("prompt", "messages", "content") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidRequest("One of `prompt`, `messages` and `content` is needed, and only one.", param="prompt")
        if self.continue_final_message:
            raise InvalidRequest("`continue_final_message` is not supported.", param="continue_final_message")
        if self.messages is not None:
            return GenerateRequest(
                id=request_id,
                messages=tuple(message.as_chat_message(i) for i, message in enumerate(self.messages)),
                tools=tuple(tool.function.as_template_tool() for tool in self.tools or ()),
                template_kwargs={
                    **(self.chat_template_kwargs or {}),
                    "add_generation_prompt": self.add_generation_prompt,
                },
                # Templates write what begins a text themselves.
                tokenize=Tokenization(begin=bool(self.add_special_tokens)),
            )
        if self.content is not None:
            how = Tokenization(begin=self.add_special, control=self.parse_special)
            return GenerateRequest(id=request_id, prompt=self.content, tokenize=how)
        how = Tokenization(begin=self.add_special_tokens is not False)
        return GenerateRequest(id=request_id, prompt=self.prompt, tokenize=how)

    def answer(self, delta: Delta, context_length: int) -> dict[str, Any]:
        if self.content is not None:
            pieces = zip(delta.token_ids, delta.pieces, strict=True)
            listed = [{"id": token, "piece": _piece(piece)} for token, piece in pieces]
            return {"tokens": listed if self.with_pieces else delta.token_ids}
        strings = [piece.decode("utf-8", errors="replace") for piece in delta.pieces]
        return {
            "count": len(delta.token_ids),
            "max_model_len": context_length,
            "tokens": delta.token_ids,
            "token_strs": strings if self.return_token_strs else None,
        }


class DetokenizeRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    tokens: list[TokenId]
    model: str | None = None

    def request(self, request_id: str) -> GenerateRequest:
        return GenerateRequest(id=request_id, token_ids=tuple(self.tokens), detokenize=True)

    def answer(self, delta: Delta) -> dict[str, Any]:
        """vLLM calls the text `prompt`, llama-server `content`."""
        return {"prompt": delta.text, "content": delta.text}


class TokenTextsRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of Xinference's `convert_ids_to_tokens`: token ids, or several lists of them."""

    model: str
    input: list[TokenId | list[TokenId]]

    def request(self, request_id: str) -> GenerateRequest:
        tokens = tuple(token for each in self.input for token in (each if isinstance(each, list) else [each]))
        return GenerateRequest(id=request_id, token_ids=tokens, detokenize=True)

    def answer(self, delta: Delta) -> list[Any]:
        texts = (piece.decode("utf-8", errors="replace") for piece in delta.pieces)
        return [[next(texts) for _ in each] if isinstance(each, list) else next(texts) for each in self.input]


def _piece(piece: bytes) -> str | list[int]:
    """A token's text; its bytes where it is a part of a character, as llama-server has it."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
