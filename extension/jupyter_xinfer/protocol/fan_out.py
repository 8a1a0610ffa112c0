"""One request of a caller as several requests to the engines: one for each choice of each prompt."""

import hashlib
from collections.abc import Sequence

from msgspec.structs import replace

from jupyter_xinfer.protocol.sampling_fields import MAX_CHOICES
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import GenerateRequest


def fan_out(prompts: Sequence[GenerateRequest], n: int, param: str = "n") -> list[GenerateRequest]:
    """`n` requests for each of `prompts`, in OpenAI's order of choices: all of the first prompt's come first.

    The first choice keeps the caller's seed, so that `n` does not change what it says; the others have seeds that
    follow from it. Raises `InvalidRequest` when they would be more than one request may ask for.
    """
    if len(prompts) * n > MAX_CHOICES:
        raise InvalidRequest(
            f"`{param}` times the number of prompts is {len(prompts) * n}; one request makes at most {MAX_CHOICES}.",
            param=param,
        )
    if len(prompts) * n == 1:
        return list(prompts)
    return [_choice(prompt, i * n + j, j) for i, prompt in enumerate(prompts) for j in range(n)]


def _choice(prompt: GenerateRequest, index: int, choice: int) -> GenerateRequest:
    seed = prompt.sampling.seed
    if seed is not None and choice:
        seed = _derived(seed, choice)
    return replace(prompt, id=f"{prompt.id}-{index}", sampling=replace(prompt.sampling, seed=seed))


def _derived(seed: int, choice: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{choice}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
