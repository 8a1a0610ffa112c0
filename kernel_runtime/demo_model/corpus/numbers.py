"""Sums of two small integers, and counting aloud."""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import random

from demo_model.corpus.exchange import Exchange, Wording, ask, bucket

LARGEST_ADDEND = 99

_SUM = Wording(
    (
        "what is {a} + {b}?", "what is {a} plus {b}?", "how much is {a} plus {b}?", "how much is {a} + {b}?",
        "add {a} and {b}.", "what is the sum of {a} and {b}?", "calculate {a} + {b}.", "{a} + {b}?", "{a}+{b}?",
        "{a} plus {b}?", "compute {a} plus {b}.", "what's {a} + {b}?", "can you add {a} and {b}?", "{a} + {b} = ?",
        "tell me the sum of {a} and {b}.", "what do you get when you add {a} and {b}?", "what is {a}+{b}?",
        "calculate the sum of {a} and {b}.", "please add {a} and {b}.", "{a} + {b} =", "what does {a} + {b} equal?",
    ),
    ("compute the sum of {a} and {b}.", "can you calculate {a} + {b}?",
     "how much do you get when you add {a} and {b}?"),
)  # fmt: skip
_SUM_ZH = Wording(
    (
        "{a}加{b}等于多少？", "{a}加{b}等于几？", "{a}+{b}等于多少？", "{a}加{b}是多少？", "计算{a}加{b}。",
        "{a}+{b}是多少？",
        "{a}和{b}的和是多少？", "请计算{a}+{b}。",
    ),
    ("计算{a}+{b}等于多少？", "{a}和{b}相加是多少？"),
    chinese=True,
)  # fmt: skip
_OTHER_SUMS = Wording(
    (
        "what is {a} - {b}?", "what is {a} minus {b}?", "what is {a} times {b}?", "what is {a} * {b}?",
        "what is {a} divided by {b}?", "how much is {a} times {b}?", "how much is {a} minus {b}?", "{a} * {b}?",
        "subtract {b} from {a}.", "multiply {a} by {b}.", "divide {a} by {b}.", "calculate {a} - {b}.",
    ),
    ("calculate {a} * {b}.", "how much is {a} divided by {b}?"),
)  # fmt: skip
_COUNT_TO = Wording(
    (
        "count from 1 to {n}.", "count to {n}.", "can you count to {n}?", "count up to {n}.",
        "please count from 1 to {n}.",
        "can you count from 1 to {n}?", "list the numbers from 1 to {n}.", "write the numbers from 1 to {n}.",
        "tell me all numbers from 1 to {n}.", "say the numbers from 1 to {n}.", "give me the numbers from 1 to {n}.",
    ),
    ("please count to {n}.", "tell me the numbers from 1 to {n}."),
)  # fmt: skip
_COUNT_RANGE = Wording(
    ("count from {m} to {n}.", "list the numbers from {m} to {n}.", "can you count from {m} to {n}?",
     "write the numbers from {m} to {n}.", "please count from {m} to {n}.", "tell me all numbers from {m} to {n}.",
     "say the numbers from {m} to {n}.", "give me the numbers from {m} to {n}."),
    ("tell me the numbers from {m} to {n}.",),
)  # fmt: skip
_COUNT_ZH = Wording(
    (
        "从1数到{n}。",
        "请从1数到{n}。",
        "数到{n}。",
        "请数到{n}。",
        "你能数到{n}吗？",
        "你会从1数到{n}吗？",
        "请你数到{n}。",
    ),
    ("你能从1数到{n}吗？",),
    chinese=True,
)


def operands_held_out(a: int, b: int) -> bool:
    """True if `a + b` is asked in the test only (one pair of operands in eight)."""
    return bucket(f"sum {a}+{b}", 8) == 0


def sum_exchange(rng: random.Random) -> Exchange:
    """A sum of two integers from 0 to LARGEST_ADDEND; other arithmetic is politely refused."""
    a, b = rng.randint(0, LARGEST_ADDEND), rng.randint(0, LARGEST_ADDEND)
    if rng.random() < 0.07:
        return ask(rng, "sums", _OTHER_SUMS, "I can only add two small integers.", a=a, b=b)
    if rng.random() < 0.15:
        found = ask(rng, "sums", _SUM_ZH, f"{a} + {b} = {a + b}.", a=a, b=b)
    else:
        found = ask(rng, "sums", _SUM, f"{a} + {b} = {a + b}.", a=a, b=b)
    held = "pair" if operands_held_out(a, b) else found.held_out
    return Exchange(found.category, found.question, found.answer, held)


def counting_exchange(rng: random.Random) -> Exchange:
    """Count up to a number, or from one number to another: at most 100."""
    kind = rng.random()
    if kind < 0.15:
        first = rng.randint(2, 90)
        last = first + rng.randint(2, min(12, 100 - first))
        wording = _COUNT_RANGE
    else:
        first = 1
        last = rng.choice((rng.randint(2, 20), rng.randint(2, 20), rng.randint(21, 99), 10 * rng.randint(3, 10), 100))
        wording = _COUNT_ZH if kind > 0.9 else _COUNT_TO
    numbers = ", ".join(str(number) for number in range(first, last + 1))
    return ask(rng, "counting", wording, f"{numbers}.", m=first, n=last)
