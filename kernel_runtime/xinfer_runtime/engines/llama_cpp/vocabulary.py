"""Text to tokens and tokens to bytes, with llama.cpp's tokenizer. Safe to use from several threads at once."""

import ctypes
from collections.abc import Iterable, Sequence
from functools import cached_property

import llama_cpp

from xinfer_runtime.chat.tool_calls import MARKERS
from xinfer_runtime.errors import EngineError

_CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN


class Vocabulary:
    """The vocabulary of a loaded model. Must not be used after the model is freed."""

    def __init__(self, model: int) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.bos: int = llama_cpp.llama_vocab_bos(self._vocab)
        self.eos: int = llama_cpp.llama_vocab_eos(self._vocab)
        self._prepends_bos: bool = llama_cpp.llama_vocab_get_add_bos(self._vocab) and self.bos >= 0
        self.infill: tuple[int, int, int] = (
            llama_cpp.llama_vocab_fim_pre(self._vocab),
            llama_cpp.llama_vocab_fim_suf(self._vocab),
            llama_cpp.llama_vocab_fim_mid(self._vocab),
        )
        """The tokens before a prefix, before a suffix and before what goes between; negative where there is none."""
        self.end_of_generation = frozenset(
            token for token in range(self.size) if llama_cpp.llama_vocab_is_eog(self._vocab, token)
        )
        self.longest_token = max((len(self._spelling(token)) for token in range(self.size)), default=1) or 1
        """Bytes of text that one token can stand for, at most."""
        control = [t for t in range(self.size) if llama_cpp.llama_vocab_get_attr(self._vocab, t) & _CONTROL]
        self.control_texts = tuple(filter(None, map(self.text, control)))
        """The texts that become control tokens where control tokens are parsed, such as `<|im_end|>`."""
        # Rendering hides control tokens; a model that marks tool calls with some must still show them.
        self._visible_control = {t: self.text(t).encode() for t in control if self.text(t) in MARKERS}
        self._pieces: dict[int, bytes] = {}

    def text(self, token: int) -> str:
        """A token as the vocabulary spells it; empty for none."""
        return self._spelling(token).decode("utf-8", errors="replace") if token >= 0 else ""

    def first_difference(self, other: "Vocabulary") -> int | None:
        """The first token that the two spell differently, of those that both have."""
        return next((t for t in range(min(self.size, other.size)) if self._spelling(t) != other._spelling(t)), None)

    def tokenize(self, segments: Iterable[str], parse_control: bool = True, *, begin: bool = True) -> list[int]:
        """Tokens of the segments one after another, with `begin` as `begun` has them.

        A control token is only recognised within one segment, which is how text can be kept from forming one.
        """
        tokens = [token for segment in segments for token in self._tokenize(_encoded(segment), parse_control)]
        return self.begun(tokens) if begin else tokens

    def begun(self, tokens: list[int]) -> list[int]:
        """The tokens with BOS in front, where the model wants one and it is not there yet."""
        return [self.bos, *tokens] if self._prepends_bos and tokens[:1] != [self.bos] else tokens

    @cached_property
    def surroundings(self) -> tuple[list[int], list[int]]:
        """The tokens that the model has before and after every text, such as [CLS] and [SEP]."""
        bare, whole = self._tokenize(b"a", parse_control=False), self._tokenize(b"a", False, add_special=True)
        start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), None)
        return ([], []) if start is None else (whole[:start], whole[start + len(bare) :])

    @cached_property
    def between(self) -> list[int]:
        """The tokens between two texts that the model compares."""
        ends = llama_cpp.llama_vocab_get_add_eos(self._vocab), llama_cpp.llama_vocab_get_add_sep(self._vocab)
        separator: int = llama_cpp.llama_vocab_sep(self._vocab)
        tokens = (self.eos if self.eos >= 0 else separator, separator)
        return [token for token, wanted in zip(tokens, ends, strict=True) if wanted and token >= 0]

    def tokens_of(self, text: bytes | str) -> list[int]:
        """Tokens of a text in which nothing is a control token, and which need not be whole UTF-8 characters."""
        return self._tokenize(_encoded(text) if isinstance(text, str) else text, parse_control=False)

    def pieces(self, tokens: Sequence[int]) -> bytes:
        """The bytes of the tokens, which need not be whole UTF-8 characters. Control tokens give nothing."""
        return b"".join(map(self.piece, tokens))

    def piece(self, token: int) -> bytes:
        """The bytes of one token."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._visible_control.get(token) or self._render(token)
        return known

    def spelling(self, token: int) -> bytes:
        """The bytes of one token, of control tokens too."""
        return self._render(token, control=True)

    def _spelling(self, token: int) -> bytes:
        spelling: bytes | None = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return spelling or b""

    def _tokenize(self, raw: bytes, parse_control: bool, *, add_special: bool = False) -> list[int]:
        capacity = len(raw) + 8
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            count: int = llama_cpp.llama_tokenize(
                self._vocab, raw, len(raw), tokens, capacity, add_special, parse_control
            )
            if 0 <= count <= capacity:
                return list(tokens[:count])
            if count >= 0 or -count <= capacity:
                raise EngineError(f"llama.cpp could not tokenize a text of {len(raw)} bytes")
            capacity = -count

    def _render(self, token: int, control: bool = False) -> bytes:
        capacity = 64
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            length: int = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, capacity, 0, control)
            if length >= 0:
                return buffer.raw[:length]
            capacity = -length


def _encoded(text: str) -> bytes:
    # A lone surrogate cannot be text; it becomes a question mark as in any encoder that replaces.
    return text.encode("utf-8", errors="replace")
