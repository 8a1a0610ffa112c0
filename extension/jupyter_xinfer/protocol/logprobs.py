"""Log probabilities in the two shapes that OpenAI has for them."""

from collections.abc import Sequence
from typing import Any

from xinfer_runtime.messages import TokenLogprob


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a chat choice. Tokens without text, such as the one that ends a turn, are left out."""
    return {
        "content": [
            {
                **_entry(token.token, token.logprob),
                "top_logprobs": [_entry(text, logprob) for text, logprob in token.top],
            }
            for token in tokens
            if token.token
        ],
        "refusal": None,
    }


def _entry(token: bytes, logprob: float) -> dict[str, Any]:
    # JSON has no infinity; OpenAI documents -9999.0 for what is out of reach.
    return {"token": _text(token), "logprob": max(logprob, -9999.0), "bytes": list(token)}


def completion_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> tuple[dict[str, Any], int]:
    """The `logprobs` of a text choice whose text begins `offset` characters in, and the offset after it."""
    body: dict[str, Any] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
    for token in tokens:
        if not token.token:
            continue
        text = _text(token.token)
        body["tokens"].append(text)
        body["token_logprobs"].append(max(token.logprob, -9999.0))
        body["top_logprobs"].append({_text(other): max(logprob, -9999.0) for other, logprob in token.top})
        body["text_offset"].append(offset)
        offset += len(text)
    return body, offset


def _text(token: bytes) -> str:
    """A token may be a part of a character; `bytes` has what it really is."""
    return token.decode("utf-8", errors="replace")
