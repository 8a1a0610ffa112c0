"""Several deltas of one request as one."""

from collections.abc import Sequence

from xinfer_runtime.messages import Delta


def merge(deltas: Sequence[Delta], request_id: str) -> Delta:
    """One delta under `request_id` that says what `deltas` (at least one, in order) say one after the other."""
    last = deltas[-1]
    if len(deltas) == 1:
        if last.id == request_id:
            return last
        text, token_ids, tool_calls, logprobs = last.text, last.token_ids, last.tool_calls, last.logprobs
    else:
        text = "".join(delta.text for delta in deltas)
        token_ids = tuple(token for delta in deltas for token in delta.token_ids)
        tool_calls = tuple(call for delta in deltas for call in delta.tool_calls)
        logprobs = tuple(logprob for delta in deltas for logprob in delta.logprobs)
    return Delta(request_id, text, token_ids, last.finish_reason, last.usage, tool_calls, last.error, logprobs)
