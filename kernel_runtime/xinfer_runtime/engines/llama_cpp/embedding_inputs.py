"""From a request for vectors to the token ids of each input."""

import re
from collections.abc import Sequence

from xinfer_runtime.chat.control_guard import ControlGuard
from xinfer_runtime.engines.llama_cpp.vocabulary import Vocabulary
from xinfer_runtime.errors import ContextLengthExceeded, InvalidRequest
from xinfer_runtime.messages import EmbedRequest

_FIELDS = re.compile(r"\{(query|document)\}")


class InputBuilder:
    """Tokenizes inputs. Safe in a thread of its own; every failure is the request's own error.

    A `pair_template` writes a query and a document as the model was trained to compare them; without one they stand one
    after the other, between the tokens that the vocabulary has for that. Texts never become control tokens.
    """

    def __init__(
        self, vocabulary: Vocabulary, context_length: int, ranks: bool = False, pair_template: str | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._context_length = context_length
        self._ranks = ranks
        self._template = _FIELDS.split(pair_template) if pair_template is not None else None
        self._guard = ControlGuard(vocabulary.control_texts)

    def build(self, request: EmbedRequest) -> list[list[int]]:
        """The token ids of each input, at least one and at most as many as the context holds.

        Raises InvalidRequest, or ContextLengthExceeded with both numbers; `param` names the input.
        """
        if self._ranks != (request.query is not None):
            raise InvalidRequest(
                "This model ranks documents: send it a query and documents, to /v1/rerank."
                if self._ranks
                else "This model makes vectors and does not rank. Launch a reranker for that.",
                param="model",
            )
        if not request.inputs:
            raise InvalidRequest("At least one input is needed", param="inputs")
        query = self._query_tokens(request.query) if request.query is not None else []
        limit = self._limit(request)
        found = []
        for index, given in enumerate(request.inputs, start=request.first):
            param = f"inputs[{index}]"
            if request.query is None:
                tokens = self._single(given, limit, param)
            elif isinstance(given, str):
                tokens = self._pair(request.query, query, given, limit, param)
            else:
                raise InvalidRequest("A document to rank is a text.", param=param)
            if not tokens:
                raise InvalidRequest("It is empty, and this model puts no tokens around a text.", param=param)
            if len(tokens) > self._context_length:
                raise self._too_long(f"{len(tokens)}", param)
            found.append(tokens)
        return found

    def _limit(self, request: EmbedRequest) -> int | None:
        """Tokens of an input to keep, None for all; of a document, those of its text alone."""
        if request.max_tokens is None:
            return None
        least = len(self._around) + 1
        if request.query is None and 0 < request.max_tokens < least:
            raise InvalidRequest(f"This model needs at least {least} tokens of an input.", param="max_tokens")
        return min(request.max_tokens or self._context_length, self._context_length)

    @property
    def _around(self) -> list[int]:
        before, after = self._vocabulary.surroundings
        return [*before, *after]

    def _single(self, given: str | tuple[int, ...], limit: int | None, param: str) -> list[int]:
        if not isinstance(given, str):
            self._check(given, param)
            return list(given[:limit])
        before, after = self._vocabulary.surroundings
        tokens = self._text(given, limit, param)
        if limit is not None:
            tokens = tokens[: limit - len(before) - len(after)]
        return [*before, *tokens, *after]

    def _pair(self, text: str, query: Sequence[int], document: str, limit: int | None, param: str) -> list[int]:
        if self._template is not None:
            return self._templated(text, document, limit, param)
        before, after = self._vocabulary.surroundings
        around = [*before, *query, *self._vocabulary.between]
        tokens = self._text(document, limit, param)
        if limit is not None:
            tokens = tokens[: min(limit, self._room(len(around) + len(after)))]
        return [*around, *tokens, *after]

    def _templated(self, query: str, document: str, limit: int | None, param: str) -> list[int]:
        tokens = self._text(document, limit, param)
        if limit is None:
            return self._rendered(query, document)
        # Cut text may tokenize to another number than it was cut to.
        room = min(limit, self._room(len(self._rendered(query, ""))))
        while True:
            cut = document
            if len(tokens) > room:
                cut = self._vocabulary.pieces(tokens[:room]).decode("utf-8", errors="ignore")
            rendered = self._rendered(query, cut)
            if len(rendered) <= self._context_length or room <= 0:
                return rendered
            room -= len(rendered) - self._context_length

    def _rendered(self, query: str, document: str) -> list[int]:
        marked = self._guard.begin([query, document])
        values = {"query": marked.protect(query), "document": marked.protect(document)}
        assert self._template is not None
        # Text and names of fields take turns.
        parts = [values[part] if place % 2 else part for place, part in enumerate(self._template)]
        return self._vocabulary.tokenize(marked.segments("".join(parts)), begin=False)

    def _query_tokens(self, query: str) -> list[int]:
        return self._text(query, None, "query")

    def _text(self, text: str, limit: int | None, param: str) -> list[int]:
        # Megabytes that cannot fit are not worth the seconds of tokenizing them, in which nobody else is prepared.
        longest = self._vocabulary.longest_token
        if limit is not None:
            text = text[: limit * longest]
        elif len(text) // longest > self._context_length:
            raise self._too_long(f"at least {len(text) // longest}", param)
        return self._vocabulary.tokens_of(text)

    def _room(self, taken: int) -> int:
        if taken >= self._context_length:
            raise ContextLengthExceeded(
                f"The query leaves no room for a document: it takes {taken} tokens of {self._context_length}.",
                param="query",
            )
        return self._context_length - taken

    def _too_long(self, tokens: str, param: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"It has {tokens} tokens, and this model takes {self._context_length} at most. Shorten it, have it cut "
            "with truncate_prompt_tokens, or launch the model with a larger context_length if it was trained for one.",
            param=param,
        )

    def _check(self, tokens: Sequence[int], param: str) -> None:
        for token in tokens:
            if not 0 <= token < self._vocabulary.size:
                raise InvalidRequest(
                    f"{token} is no token of this model (0 to {self._vocabulary.size - 1}). Token ids are those of the "
                    "model's own vocabulary; clients that make others, such as LangChain with tiktoken, send text with "
                    "check_embedding_ctx_length=False.",
                    param=param,
                )
