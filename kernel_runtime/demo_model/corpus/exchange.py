"""One question and its only right answer, and the rule that keeps some questions out of training.

A question is held out of training in one of two ways:

- "phrasing": its wording (opener and core, whatever the fact) never occurs in training;
- "pair": the wording occurs with other facts and the fact with other wordings, but not the two together
  (for sums: the two operands never occur together in training, in any wording).
"""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

HeldOut = Literal["", "phrasing", "pair"]

_TRAILING = " .!?,。！？，:)~"


@dataclass(frozen=True)
class Exchange:
    """A user's question and the exact answer expected."""

    category: str
    question: str
    answer: str
    held_out: HeldOut = ""


def normalised(text: str) -> str:
    """What two spellings of the same question share: lower case, no punctuation or blanks at the end."""
    return " ".join(text.lower().split()).rstrip(_TRAILING)


def bucket(key: str, buckets: int) -> int:
    """A stable pseudo-random number in [0, buckets) for `key`, the same in every run."""
    return zlib.crc32(key.encode("utf-8")) % buckets


@dataclass(frozen=True)
class Wording:
    """The ways to put one kind of question. `cores` are learned, `held_cores` are only ever asked in the test.

    A core may hold `{name}` fields. English cores start in lower case; the opener decides on capitals.
    """

    cores: Sequence[str]
    held_cores: Sequence[str] = ()
    chinese: bool = False
    dressed: bool = True


_OPENERS = (
    "Please tell me: ", "Hey, ", "Hi! ", "Hello, ", "Quick question: ", "I have a question: ", "Can you help me? ",
    "Question: ", "Excuse me, ", "Tell me, ", "OK, ", "Now, ", "One more question: ", "I am curious: ", "So, ",
)  # fmt: skip
_CLOSERS = (" Thanks!", " Thank you.", " Please tell me.", " I want to know.", " Thanks in advance!")
_OPENERS_ZH = ("请问，", "请问", "你好，", "我想问一下，", "问一下，", "请告诉我，", "我想知道，", "嘿，")
_CLOSERS_ZH = ("谢谢！", "谢谢你。", "请告诉我。")


def ask(rng: random.Random, category: str, wording: Wording, answer: str, **fields: object) -> Exchange:
    """Put a question in a random wording; the answer is the same for all of them."""
    core = rng.choice((*wording.cores, *wording.held_cores))
    opener, closer = "", ""
    if wording.dressed:
        openers, closers = (_OPENERS_ZH, _CLOSERS_ZH) if wording.chinese else (_OPENERS, _CLOSERS)
        opener = rng.choice(openers) if rng.random() < 0.35 else ""
        closer = rng.choice(closers) if rng.random() < 0.15 else ""
    body = core.format(**fields)
    if opener == "" or opener.rstrip()[-1] in "!?.:":
        body = body[:1].upper() + body[1:]
    question = opener + body + closer
    held: HeldOut = ""
    if core in wording.held_cores or (opener and bucket(f"{opener}|{core}", 12) == 0):
        held = "phrasing"
    elif bucket(normalised(question), 14) == 0:
        held = "pair"
    return Exchange(category, question, answer, held)
