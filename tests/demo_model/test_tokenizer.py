"""The tokenizer: exact round trips, and the same tokens as llama.cpp gives."""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import itertools
from pathlib import Path

import pytest

from demo_model.corpus.mixture import training_conversations
from demo_model.template import render

pytest.importorskip("regex")
llama_cpp = pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")

from demo_model.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "kernel_runtime/xinfer_runtime/catalog/data/xinfer-demo-q8_0.gguf"
ODD_TEXTS = (
    "", " ", "\n\n", "a  b   c", "tabs\tand\r\nlines\n", "don't DON'T it's", "1234567890 3.14", "naïve café ½ ² Ⅷ",
    "你好，世界！１２３", "🙂👍🏽", '{"name": "get_weather", "arguments": {"city": "Paris"}}', "«quoted» — dash…",
    "x" * 300,
)  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> list[str]:
    conversations = itertools.islice(training_conversations(11), 600)
    return [c.plain or render(c.messages, c.tools) for c in conversations]


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    field = gguf.GGUFReader(SHIPPED).fields["tokenizer.ggml.merges"]
    return Tokenizer([tuple(merge.split(" ")) for merge in field.contents()])


@pytest.fixture(scope="module")
def in_llama_cpp():  # type: ignore[no-untyped-def]
    model = llama_cpp.Llama(str(SHIPPED), vocab_only=True, verbose=False)
    yield model
    model.close()


def test_llama_cpp_agrees_on_the_corpus(texts: list[str], shipped: Tokenizer, in_llama_cpp) -> None:  # type: ignore[no-untyped-def]
    for text in texts:
        assert in_llama_cpp.tokenize(text.encode(), add_bos=False, special=True) == shipped.encode(text)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_llama_cpp_agrees_on_odd_texts(text: str, shipped: Tokenizer, in_llama_cpp) -> None:  # type: ignore[no-untyped-def]
    assert in_llama_cpp.tokenize(text.encode(), add_bos=False, special=True) == shipped.encode(text)


def test_tool_marks_come_out_as_text_and_control_tokens_do_not(shipped: Tokenizer, in_llama_cpp) -> None:  # type: ignore[no-untyped-def]
    ids = shipped.encode("<tool_call>\n{}\n</tool_call><|im_end|>")
    assert in_llama_cpp.detokenize(ids) == b"<tool_call>\n{}\n</tool_call>"


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_decoding_gives_the_text_back(text: str, shipped: Tokenizer) -> None:
    assert shipped.decode(shipped.encode(text)) == text


def test_each_digit_is_a_token_of_its_own(shipped: Tokenizer) -> None:
    assert len(shipped.encode("2026")) == 4


def test_a_name_has_the_same_tokens_after_a_blank_and_after_a_quotation_mark(shipped: Tokenizer) -> None:
    name = shipped.encode("Paris")
    assert shipped.encode(" Paris")[1:] == name
    assert shipped.encode('{"city": "Paris"')[-len(name) - 1 : -1] == name


def test_training_is_deterministic_and_keeps_to_the_size(texts: list[str]) -> None:
    first, second = train_tokenizer(texts[:200], 400), train_tokenizer(texts[:200], 400)
    assert first.merges == second.merges
    assert first.vocab_size == 400
    assert first.tokens[-len(SPECIAL_TOKENS) :] == list(SPECIAL_TOKENS)
