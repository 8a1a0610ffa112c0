"""A conversation in the OpenAI message format: what the chat template renders and the model learns from."""

from dataclasses import dataclass, field
from typing import Any

from demo_model.corpus.exchange import HeldOut

Message = dict[str, Any]


@dataclass
class Conversation:
    """Messages that end with the assistant's answer.

    `weights` holds one loss weight per assistant message, in quarters (4 counts fully): texts with a free choice of
    words count less than answers that must be exact. `plain` is a text without chat markup, for raw completion.
    """

    category: str
    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    held_out: HeldOut = ""
    plain: str = ""

    def user_texts(self) -> list[str]:
        """What the user asked, turn by turn."""
        return [message["content"] for message in self.messages if message["role"] == "user"]
