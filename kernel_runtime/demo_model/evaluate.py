"""Measure the exported file on the held-out set: `python -m demo_model.evaluate --model FILE`.

The file is run by llama.cpp at temperature 0, on prompts rendered with the chat template stored in it.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import llama_cpp

from demo_model.held_out import HeldOutItem, held_out_items, is_right, write_sample
from demo_model.template import render

LONGEST_ANSWER = 800  # tokens


class GreedyModel:
    """A GGUF file in llama.cpp, decoded greedily."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        self._llama = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=threads, verbose=False)

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata, as text."""
        return dict(self._llama.metadata)

    def close(self) -> None:
        """Free the model."""
        self._llama.close()

    def answer(self, item: HeldOutItem) -> str:
        """The raw text that the model answers with, without the end mark."""
        return self.complete(render(item.messages, item.tools, add_generation_prompt=True))

    def complete(self, prompt: str) -> str:
        """The most likely continuation of `prompt`, up to the end mark or LONGEST_ANSWER tokens."""
        llama = self._llama
        tokens = llama.tokenize(prompt.encode(), add_bos=False, special=True)
        answer: list[int] = []
        for token in llama.generate(tokens, temp=0.0, repeat_penalty=1.0):
            if llama_cpp.llama_vocab_is_eog(llama._model.vocab, token) or len(answer) == LONGEST_ANSWER:
                break
            answer.append(token)
        return llama.detokenize(answer, special=True).decode("utf-8", errors="replace")


def main(argv: list[str] | None = None) -> None:
    """Print the accuracy by category, and at times the wrong answers and the sample for the API tests."""
    parser = argparse.ArgumentParser(description="Evaluate the demo model on held-out questions.")
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the training")
    parser.add_argument("--per-category", type=int, default=100)
    parser.add_argument("--show-wrong", action="store_true")
    parser.add_argument("--write-sample", type=Path, help="write the items for the API tests to this file")
    parser.add_argument("--sample-per-category", type=int, default=16)
    options = parser.parse_args(argv)
    if options.write_sample:
        print(f"{write_sample(options.write_sample, options.seed, options.sample_per_category)} items in the sample")
    model = GreedyModel(options.model)
    right: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for item in held_out_items(options.seed, options.per_category):
        text = model.answer(item)
        good = is_right(item, text)
        right[item.category, item.held_out].append(good)
        if not good and options.show_wrong:
            wanted = json.dumps(item.calls, ensure_ascii=False) if item.calls else item.content
            print(f"{item.category}: {item.messages[-1]['content']!r}\n  wanted {wanted!r}\n  got    {text!r}")
    for category in sorted({category for category, _ in right}):
        parts = {kind: right[category, kind] for kind in ("phrasing", "pair") if right[category, kind]}
        print(_line(category, [good for part in parts.values() for good in part]), end="")
        print("".join(f"   {kind} {sum(part)}/{len(part)}" for kind, part in parts.items()))
    print(_line("all", [good for part in right.values() for good in part]))


def _line(name: str, good: list[bool]) -> str:
    return f"{name:14} {sum(good):4}/{len(good):4} = {100 * sum(good) / len(good):5.1f} %"


if __name__ == "__main__":
    main()
