"""The best of several completions of one prompt: those whose tokens were the most probable on average."""

from collections.abc import Sequence

from xinfer_runtime.messages import Delta


def best(candidates: Sequence[Delta], count: int) -> list[Delta]:
    """`count` of the whole answers, best first; all of them as they are, where no more were made than wanted."""
    if len(candidates) <= count:
        return list(candidates)
    return sorted(candidates, key=_log_probability_per_token, reverse=True)[:count]


def _log_probability_per_token(delta: Delta) -> float:
    logprobs = [token.logprob for token in delta.logprobs]
    return sum(logprobs) / len(logprobs) if logprobs else float("-inf")
