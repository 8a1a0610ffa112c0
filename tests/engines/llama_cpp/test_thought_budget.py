"""Thoughts that end when their tokens are spent. Tokens here are bytes, and pieces of several."""

from typing import Any

import numpy as np
import pytest

from xinfer_runtime.chat.output_parser import output_form
from xinfer_runtime.engines.llama_cpp.thought_budget import ThoughtBudget, thought_marks
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams

PIECES = [*(bytes([byte]) for byte in range(256)), b"<think>", b"</think>", b"<think>\nHm.</think>"]


def tokens_of(text: str) -> list[int]:
    """The text in bytes, with tags as tokens of their own."""
    raw, tokens = text.encode(), []
    while raw:
        tag = next((token for token in (256, 257) if raw.startswith(PIECES[token])), None)
        tokens.append(tag if tag is not None else raw[0])
        raw = raw[len(PIECES[tokens[-1]]) :]
    return tokens


def written(wanted: list[int], budget: int, template: str = "<think>", prompt_end: str = "") -> str:
    """What comes of a model that wants to write those tokens."""
    form = output_form(template, prompt_end)
    marks = thought_marks(form)
    assert marks is not None
    subject = ThoughtBudget(marks, budget, tokens_of(marks.ending), PIECES.__getitem__, inside=form.inside)
    text = b""
    wishes = list(wanted)
    while wishes or subject.spent:
        logits = np.zeros(len(PIECES), dtype=np.float32)
        subject.rule_out(logits)
        (free,) = np.isfinite(logits).nonzero()
        token = int(free[0]) if subject.spent else wishes.pop(0)
        assert subject.spent == (len(free) == 1)
        subject.accept(token)
        text += PIECES[token]
    return text.decode()


@pytest.mark.parametrize(
    ("text", "budget", "becomes"),
    [
        ("<think>1234", 9, "<think>1234"),
        ("<think>12</think>an answer", 3, "<think>12</think>an answer"),
        ("<think>12345", 3, "<think>123\n</think>45"),
        ("\n <think>12345", 3, "\n <think>123\n</think>45"),
        ("<think>12345", 0, "<think>\n</think>12345"),
        ("No thoughts. <think>", 1, "No thoughts. <think>"),
        ("<think>1</think><think>23456", 3, "<think>1</think><think>23456"),
        ("<thinking", 1, "<thinking"),
    ],
)
def test_thoughts_end_when_their_tokens_are_spent(text: str, budget: int, becomes: str) -> None:
    assert written(tokens_of(text), budget) == becomes


@pytest.mark.parametrize(("budget", "becomes"), [(0, "\n</think>12"), (1, "1\n</think>2"), (9, "12")])
def test_thoughts_that_the_prompt_opened_are_bounded_too(budget: int, becomes: str) -> None:
    assert written(tokens_of("12"), budget, prompt_end="<think>\n") == becomes


def test_tags_may_be_parts_of_a_token_or_several_tokens() -> None:
    assert written([258, *b"abcdef"], 3) == "<think>\nHm.</think>abcdef"
    assert written(list(b"<think>a</think>bcdefghijkl"), 12) == "<think>a</think>bcdefghijkl"


def test_gpt_oss_may_think_in_several_messages_and_answers_when_their_tokens_are_spent() -> None:
    first, again = "<|channel|>analysis<|message|>12<|end|>", "<|start|>assistant<|channel|>analysis<|message|>"
    final = "<|end|><|start|>assistant<|channel|>final<|message|>"
    spent = 2 + len("<|end|>") + 3
    assert written(tokens_of(f"{first}{again}34567"), spent, "<|channel|>") == f"{first}{again}345{final}67"


THINKS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n<think>\n"
)


async def test_an_engine_ends_thoughts_and_a_resumed_stream_ends_them_in_the_same_place(
    running: Any, make_model: Any
) -> None:
    def thinking(request_id: str, budget: int | None, resume: list[int]) -> GenerateRequest:
        messages = (ChatMessage(role="user", content="Think!"),)
        sampling = SamplingParams(seed=1, max_tokens=60, ignore_eos=True)
        return GenerateRequest(
            id=request_id, messages=messages, thinking_budget=budget, sampling=sampling, resume=tuple(resume)
        )

    other = type(running)()
    await other.load(make_model(template=THINKS, context_length=2048))
    try:
        await other.run(thinking("unbounded", None, []))
        await other.run(thinking("bounded", 20, []))
        tokens = other.tokens("bounded")
        for cut in (5, 22):
            await other.run(thinking(f"resumed at {cut}", 20, tokens[:cut]))
    finally:
        await other.engine.close()

    assert other.text("unbounded") == ""
    assert tokens[:20] == other.tokens("unbounded")[:20]
    assert tokens[20] == ord("\n")
    thoughts = "".join(delta.reasoning for delta in other.deltas["bounded"])
    assert "".join(delta.reasoning for delta in other.deltas["unbounded"]).startswith(thoughts)
    assert other.text("bounded")
    assert [other.tokens(f"resumed at {cut}") for cut in (5, 22)] == [tokens[5:], tokens[22:]]
