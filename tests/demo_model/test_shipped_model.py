"""The GGUF file that the package ships."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo_model.held_out import HeldOutItem, held_out_items, is_right, parse_calls, write_sample
from demo_model.template import template_source

pytest.importorskip("llama_cpp")

from demo_model.evaluate import GreedyModel

SHIPPED = Path(__file__).parents[2] / "kernel_runtime/xinfer_runtime/catalog/data/xinfer-demo-q8_0.gguf"
SAMPLE = Path(__file__).with_name("held_out.json")


@pytest.fixture(scope="module")
def model() -> Iterator[GreedyModel]:
    shipped = GreedyModel(SHIPPED, threads=1)
    yield shipped
    shipped.close()


def chat(model: GreedyModel, question: str) -> str:
    return model.answer(HeldOutItem("", "", [{"role": "user", "content": question}], [], "", []))


def test_the_file_has_at_most_eight_megabytes() -> None:
    assert SHIPPED.stat().st_size <= 8_000_000


def test_the_file_holds_the_template_of_the_scripts(model: GreedyModel) -> None:
    assert model.metadata["tokenizer.chat_template"] == template_source()


def test_it_is_a_llama_with_a_context_of_1024(model: GreedyModel) -> None:
    assert model.metadata["general.architecture"] == "llama"
    assert model.metadata["llama.context_length"] == "1024"


def test_a_sample_of_the_held_out_questions_is_answered_right(model: GreedyModel) -> None:
    items = held_out_items(1, 8)
    right = [is_right(item, model.answer(item)) for item in items]
    assert len(items) > 100
    assert sum(right) >= 0.95 * len(right)


def test_it_counts_to_one_hundred(model: GreedyModel) -> None:
    assert chat(model, "Count from 1 to 100.") == ", ".join(str(n) for n in range(1, 101)) + "."


def test_the_sample_for_the_api_tests_is_what_the_scripts_write(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.json", 1, 16)
    assert (tmp_path / "sample.json").read_text(encoding="utf-8") == SAMPLE.read_text(encoding="utf-8")


def test_the_sample_has_every_category_but_stories() -> None:
    items = json.loads(SAMPLE.read_text(encoding="utf-8"))
    counts = Counter(item["category"] for item in items)
    assert len(counts) == 13
    assert set(counts.values()) == {16}
    assert all(("content" in item["expected"]) != ("tool_calls" in item["expected"]) for item in items)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>', [{"name": "add", "arguments": {}}]),
        ("no call", []),
        ("<tool_call>\n{broken\n</tool_call>", None),
    ],
)
def test_calls_are_read_from_the_raw_answer(text: str, calls: object) -> None:
    assert parse_calls(text) == calls
