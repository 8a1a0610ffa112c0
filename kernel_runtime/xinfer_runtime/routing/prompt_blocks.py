"""A request's prompt as a chain of block hashes, so that equal beginnings are found without a tokenizer.

The prompt is written down as bytes in the order in which chat templates lay it out: tools, then message after message.
It is cut into blocks of `BLOCK_BYTES` from its start; a block's hash covers everything up to its end. Two prompts with
n equal hashes at their start have n blocks in common, and so have nearly the same tokens there, whatever the template
puts between messages. Python's own hash of bytes is SipHash with a secret of this process: nobody outside can make two
texts collide, and the cost of a collision would be one request at a worse replica.
"""

from array import array
from typing import Final

import msgspec

from xinfer_runtime.messages import ChatMessage, EmbedRequest, GenerateRequest, ReplicaRequest

BLOCK_BYTES: Final = 128
BYTES_PER_TOKEN: Final = 4
"""Of English and code, about; an estimate is all that routing needs."""
_IMAGE_TOKENS: Final = 256
_SAMPLE: Final = 2048

_encode = msgspec.json.Encoder().encode


class Prompt(msgspec.Struct, frozen=True):
    """`blocks` are the hashes of the whole blocks, `tokens` the estimated length of all."""

    tokens: int
    blocks: tuple[int, ...] = ()


def prompt_of(request: ReplicaRequest) -> Prompt:
    """What routing needs of a request. Tokens that it resumes with are computed too, and count."""
    if isinstance(request, EmbedRequest):
        sizes = (len(each) // BYTES_PER_TOKEN if isinstance(each, str) else len(each) for each in request.inputs)
        return Prompt(sum(sizes) + len(request.inputs))
    content, images = _content(request)
    tokens = len(content) // BYTES_PER_TOKEN + images * _IMAGE_TOKENS + len(request.resume) + 1
    # What is computed with an adapter is of use with this adapter only.
    value = hash(request.lora)
    blocks = []
    for start in range(0, len(content) - BLOCK_BYTES + 1, BLOCK_BYTES):
        value = hash((value, content[start : start + BLOCK_BYTES]))
        blocks.append(value)
    return Prompt(tokens, tuple(blocks))


def _content(request: GenerateRequest) -> tuple[bytes, int]:
    """The prompt as bytes, and the number of its images."""
    if request.token_ids is not None:
        return _bytes_of(request.token_ids), 0
    if request.messages is None:
        return (request.prompt or "").encode("utf-8", "surrogatepass"), 0
    parts = [_encode(request.tools)] if request.tools else []
    images = 0
    for message in request.messages:
        _add(parts, message)
        images += len(message.images)
    return b"\0".join(parts), images


def _add(parts: list[bytes], message: ChatMessage) -> None:
    parts.append(message.role.encode("utf-8", "surrogatepass"))
    for text in (message.reasoning, message.content):
        if text:
            parts.append(text.encode("utf-8", "surrogatepass"))
    for call in message.tool_calls:
        parts.append(f"{call.name} {call.arguments}".encode("utf-8", "surrogatepass"))
    for image in message.images:
        # Whole images would cost more to hash than all the rest, and differ in their ends if at all.
        parts.append(b"%d" % len(image.data) + image.data[:_SAMPLE] + image.data[-_SAMPLE:])


def _bytes_of(token_ids: tuple[int, ...]) -> bytes:
    try:
        return array("i", token_ids).tobytes()  # Four bytes each, as many as a token of text has.
    except OverflowError:
        return b""  # No model's tokens; the engine will say so.
