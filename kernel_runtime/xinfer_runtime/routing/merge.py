"""Several deltas of one request as one."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from xinfer_runtime.messages import Delta


def merge(deltas: Sequence[Delta], request_id: str) -> Delta:
    """One delta under `request_id` that says what `deltas` (at least one, in order) say one after the other."""
    last = deltas[-1]
    if len(deltas) == 1:
        if last.id == request_id:
            return last
        return replace(last, id=request_id)
    return Delta(
        request_id,
        "".join(delta.text for delta in deltas),
        tuple(token for delta in deltas for token in delta.token_ids),
        last.finish_reason,
        last.usage,
        tuple(call for delta in deltas for call in delta.tool_calls),
        last.error,
        tuple(logprob for delta in deltas for logprob in delta.logprobs),
        "".join(delta.reasoning for delta in deltas),
        next((delta.mirostat_mu for delta in reversed(deltas) if delta.mirostat_mu is not None), None),
        tuple(piece for delta in deltas for piece in delta.pieces),
        tuple(vector for delta in deltas for vector in delta.vectors),
        last.stop_string,
        max(delta.prompt_tokens for delta in deltas),
    )


async def whole(deltas: AsyncGenerator[Delta], request_id: str) -> Delta:
    """All deltas of an answer as one, once the last has come."""
    async with aclosing(deltas) as coming:
        return merge([delta async for delta in coming], request_id)
