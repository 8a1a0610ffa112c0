"""Deltas small enough for one line of a stream: clients that read lines have buffers of 64 KiB (aiohttp's, and so
Xinference's asynchronous client).

A delta is large where its client reads slowly, so that much has come meanwhile; where it echoes a long prompt; or where
it calls a tool with long arguments, which come whole from the replica.
"""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from xinfer_runtime.messages import Delta, TokenLogprob, ToolCall

MAX_LINE = 64 << 10
# JSON writes a control character with six bytes, and everything else with four at most.
_CHARACTERS = 8000
_BYTES_PER_LOGPROB = 120
"""What surrounds a token's text and its bytes, both of which are written."""
_LOGPROB_BYTES = 48_000


def in_lines(delta: Delta) -> list[Delta]:
    """`delta` as several, of which each fits into a line; what ends the stream is in the last.

    A call whose arguments go on in the next delta is followed there by one without id and name.
    """
    arguments = sum(len(call.arguments) for call in delta.tool_calls)
    if len(delta.text) + len(delta.reasoning) + arguments <= _CHARACTERS and len(delta.logprobs) < 16:
        return [delta]
    parts = [
        *(Delta(delta.id, reasoning=piece) for piece in _pieces(delta.reasoning)),
        *(Delta(delta.id, piece) for piece in _pieces(delta.text)),
        *(Delta(delta.id, tool_calls=(piece,)) for call in delta.tool_calls for piece in _call_pieces(call)),
        *(Delta(delta.id, logprobs=some) for some in _logprob_pieces(delta.logprobs)),
    ]
    last = parts.pop() if parts else Delta(delta.id)
    return [*parts, replace(last, token_ids=delta.token_ids, finish_reason=delta.finish_reason, usage=delta.usage)]


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS))


def _call_pieces(call: ToolCall) -> Iterator[ToolCall]:
    first, *others = list(_pieces(call.arguments)) or [""]
    yield replace(call, arguments=first)
    for piece in others:
        yield ToolCall(id="", name="", arguments=piece)


def _logprob_pieces(logprobs: Sequence[TokenLogprob]) -> Iterator[tuple[TokenLogprob, ...]]:
    some: list[TokenLogprob] = []
    size = 0
    for token in logprobs:
        texts = [token.token, *(text for text, _ in token.top)]
        # Of each byte: its number and a comma, and itself as up to six more.
        needed = sum(_BYTES_PER_LOGPROB + 10 * len(text) for text in texts)
        if some and size + needed > _LOGPROB_BYTES:
            yield tuple(some)
            some, size = [], 0
        some.append(token)
        size += needed
    if some:
        yield tuple(some)
