"""OpenAI's embeddings, and the reranking of Jina, Cohere and Xinference: what is asked, and what replicas get."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from jupyter_xinfer.protocol.sampling_fields import PositiveInt, TokenId
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import EmbedRequest

MAX_INPUTS = 2048
"""OpenAI's bound of texts in one request."""

Truncation = Annotated[int, Meta(ge=-1)]


class EmbeddingsRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`truncate_prompt_tokens` is vLLM's: tokens to keep of an input, -1 for as many as the model takes; without it,
    an input that is too long is refused.
    """

    input: str | list[str | TokenId | list[TokenId]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: PositiveInt | None = None
    normalize: bool = True
    truncate_prompt_tokens: Truncation | None = None
    user: str | None = None

    own_names: ClassVar[Mapping[str, str]] = {"inputs": "input", "max_tokens": "truncate_prompt_tokens"}
    """What engines call fields of this request, and what its caller calls them."""

    def request(self, request_id: str) -> EmbedRequest:
        """The replicas' request. Raises `InvalidRequest` that names the field."""
        return EmbedRequest(
            id=request_id,
            inputs=self._inputs(),
            dimensions=self.dimensions,
            normalize=self.normalize,
            max_tokens=max_tokens(self.truncate_prompt_tokens),
        )

    def _inputs(self) -> tuple[str | tuple[int, ...], ...]:
        given = self.input
        if isinstance(given, str):
            return (_text(given, "input"),)
        whole_ids = tuple(item for item in given if isinstance(item, int))
        if given and len(whole_ids) == len(given):
            return (whole_ids,)
        if whole_ids or not given:
            raise InvalidRequest(
                "`input` must be a string, a list of strings, a list of token ids, or a list of those.", param="input"
            )
        if len(given) > MAX_INPUTS:
            raise InvalidRequest(f"`input` takes at most {MAX_INPUTS} inputs, not {len(given)}.", param="input")
        inputs: list[str | tuple[int, ...]] = []
        for index, item in enumerate(given):
            if isinstance(item, str):
                inputs.append(_text(item, f"input[{index}]"))
            elif isinstance(item, list) and item:
                inputs.append(tuple(item))
            else:
                raise InvalidRequest(f"`input[{index}]` is empty.", param=f"input[{index}]")
        return tuple(inputs)


class Document(Struct, kw_only=True):
    """Whatever else a document has comes back with it, and plays no part in the ranking."""

    text: str


class RerankRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`kwargs` is what Xinference's client sends beside the same fields by name. `raw_scores` leaves scores as the
    model gives them, instead of from 0 to 1.
    """

    query: str
    documents: Annotated[list[str | Document], Meta(min_length=1, max_length=MAX_INPUTS)]
    model: str | None = None
    top_n: PositiveInt | None = None
    return_documents: bool | None = None
    return_len: bool | None = None
    raw_scores: bool = False
    truncate_prompt_tokens: Literal[-1] | None = None
    max_tokens_per_doc: PositiveInt | None = None
    max_chunks_per_doc: int | None = None
    kwargs: str | None = None
    user: str | None = None

    own_names: ClassVar[Mapping[str, str]] = {"inputs": "documents", "max_tokens": "max_tokens_per_doc"}

    def request(self, request_id: str) -> EmbedRequest:
        """The replicas' request. Raises `InvalidRequest` that names the field."""
        if self.max_chunks_per_doc not in (None, 1):
            raise InvalidRequest(
                "`max_chunks_per_doc` is not supported by this server: a document is ranked as a whole.",
                param="max_chunks_per_doc",
            )
        return EmbedRequest(
            id=request_id,
            inputs=tuple(self.texts()),
            query=_text(self.query, "query"),
            normalize=not self.raw_scores,
            max_tokens=self.max_tokens_per_doc or max_tokens(self.truncate_prompt_tokens),
        )

    def texts(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]


def max_tokens(truncate_prompt_tokens: int | None) -> int | None:
    """As `EmbedRequest` has it, which calls as many as the model takes 0."""
    if truncate_prompt_tokens == 0:
        raise InvalidRequest("`truncate_prompt_tokens` is -1 or at least 1.", param="truncate_prompt_tokens")
    return None if truncate_prompt_tokens is None else max(truncate_prompt_tokens, 0)


def _text(text: str, param: str) -> str:
    if not text:
        raise InvalidRequest(f"`{param}` is an empty text.", param=param)
    return text
