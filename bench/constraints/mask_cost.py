"""What a constraint costs per token: `python bench/constraints/mask_cost.py`.

Compares llguidance, which the engine uses, with the grammar sampler of llama.cpp, on made-up vocabularies of 32,000 and
150,000 tokens. For each, a text that conforms is fed token by token; before each token the mask is computed, and
applied to a row of logits. The first run over a grammar learns it, later ones know it.
"""

import ctypes
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from xinfer_runtime.chat.output_parser import output_form
from xinfer_runtime.engines.llama_cpp.constraint_compiler import ConstraintCompiler
from xinfer_runtime.messages import Constraint, ConstraintKind

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": "string", "maxLength": 40},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["person", "company", "robot"]},
    },
    "required": ["name", "age", "mail", "tags", "kind"],
    "additionalProperties": False,
}
ANSWER = (
    '{"name": "a name of some words", "age": 42, "mail": "someone at some place", '
    '"tags": ["short", "another tag", "and a third"], "kind": "robot"}'
)
TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA, "strict": True}}
TEXT = "The weather is fine today, and it will be warmer in the last days of the week; do not forget your hat, though. "
CALL = f'<tool_call>\n{{"name": "add", "arguments": {ANSWER}}}\n</tool_call>'
NARROW = "words of lower case letters and blanks and nothing else until the end."
GBNF = r"""
root ::= "{" ws "\"name\":" ws string "," ws "\"age\":" ws int "," ws "\"mail\":" ws string "," ws "\"tags\":" ws tags
  "," ws "\"kind\":" ws ("\"person\"" | "\"company\"" | "\"robot\"") ws "}"
tags ::= "[" ws (string ("," ws string)*)? ws "]"
string ::= "\"" ([^"\\\x00-\x1F] | "\\" ["\\bfnrt])* "\""
int ::= [0-9] | [1-9] [0-9] | "1" [0-4] [0-9] | "150"
ws ::= " "?
""".replace("\n  ", " ")


def vocabulary(size: int) -> list[bytes]:
    """All bytes, then pieces of words, numbers and code in about the shares that real vocabularies have; end last."""
    chance = random.Random(1)
    letters, weights = "etaoinshrdlcumwfgypbvkjxqz", [1 / (n + 1) for n in range(26)]
    pieces = dict.fromkeys(bytes([byte]) for byte in range(256))
    pieces.update(dict.fromkeys(text.encode() for text in ('{"', '": "', '", "', '": ', '"}', "], ", '["', "\n  ")))
    while len(pieces) < size - 1:
        word = "".join(chance.choices(letters, weights, k=min(12, max(2, int(chance.gauss(5, 2.2))))))
        kind = chance.random()
        if kind < 0.45:
            word = " " + word
        elif kind < 0.55:
            word = word.capitalize()
        elif kind < 0.6:
            word = str(chance.randrange(10 ** chance.randrange(1, 4)))
        elif kind < 0.66:
            word = '"' + word if kind < 0.63 else word + '"'
        elif kind < 0.72:
            word = "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(chance.randrange(1, 3)))
        elif kind < 0.74:
            word = "".join(chance.choices("{}[]():;,.<>=+-*/\\\"' ", k=chance.randrange(2, 5)))
        pieces.setdefault(word.encode())
    return [*pieces, b""]


def tokens_of(text: str, pieces: Sequence[bytes]) -> list[int]:
    """The text by longest match."""
    ids = {piece: token for token, piece in reversed(list(enumerate(pieces))) if piece}
    raw, tokens = text.encode(), []
    while raw:
        length = next(n for n in range(min(len(raw), 24), 0, -1) if raw[:n] in ids)
        tokens.append(ids[raw[:length]])
        raw = raw[length:]
    return tokens


def timed(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return (time.perf_counter() - began) * 1e6


def report(name: str, costs: list[float]) -> None:
    ordered = sorted(costs)
    p99 = ordered[int(0.99 * (len(ordered) - 1))]
    print(f"  {name:40} median {statistics.median(costs):9.1f} us   99 % {p99:9.1f} us   max {ordered[-1]:9.1f} us")


def measure_llguidance(pieces: Sequence[bytes]) -> None:
    compiler = ConstraintCompiler(pieces.__getitem__, len(pieces), frozenset({len(pieces) - 1}))
    schema = Constraint(ConstraintKind.JSON_SCHEMA, SCHEMA)
    print(
        f"  llguidance: first compilation, with the tokenizer {timed(lambda: compiler.compile(schema)) / 1000:.0f} ms"
    )
    other = Constraint(ConstraintKind.JSON_SCHEMA, {**SCHEMA, "title": "other"})
    print(f"  llguidance: compilation {timed(lambda: compiler.compile(other)) / 1000:.2f} ms")
    row = np.random.default_rng(0).standard_normal(len(pieces)).astype(np.float32)
    # The worst case: few of the tokens that begin a word may come, and nearly all of the vocabulary must be looked at.
    narrow = Constraint(ConstraintKind.REGEX, "[a-z ]{20,200}[.]")
    form = output_form("<think> <tool_call>", "")
    for shape, begin, text in (
        ("JSON", lambda: compiler.compile(schema), ANSWER),
        ("[a-z ]{20,200}", lambda: compiler.compile(narrow), NARROW),
        ("strict function, text", lambda: compiler.compile_calls([TOOL], form), TEXT),
        ("strict function, call", lambda: compiler.compile_calls([TOOL], form), CALL),
    ):
        for which, texts in (("first text", 1), ("later texts", 20)):
            costs = []
            for _ in range(texts):
                state = begin()
                for token in tokens_of(text, pieces):
                    logits = row.copy()
                    costs.append(timed(lambda state=state, logits=logits: state.rule_out(logits)))
                    assert np.isfinite(logits[token])
                    costs[-1] += timed(lambda state=state, token=token: state.accept(token))
                assert state.complete or text in (TEXT, CALL)
            report(f"llguidance, {shape}, {which}", costs)


def measure_llama_cpp(pieces: Sequence[bytes], tokens: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        write_vocabulary(path, pieces)
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    row = np.random.default_rng(0).standard_normal(len(pieces)).astype(np.float32)
    candidates = np.zeros(len(pieces), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    array = llama_cpp.llama_token_data_array()
    array.data = candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    costs = []
    sampler = llama_cpp.llama_sampler_init_grammar(vocab, GBNF.encode(), b"root")
    for token in tokens:

        def rule_out() -> None:
            candidates["id"] = np.arange(len(pieces))
            candidates["logit"] = row
            array.size, array.selected, array.sorted = len(pieces), -1, False
            llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))

        costs.append(timed(rule_out))
        assert np.isfinite(candidates["logit"][token])
        costs[-1] += timed(lambda token=token: llama_cpp.llama_sampler_accept(sampler, token))
    report("llama.cpp, JSON, every text", costs)


def write_vocabulary(path: Path, pieces: Sequence[bytes]) -> None:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    symbols = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["".join(symbols[byte] for byte in piece) for piece in pieces[:-1]] + ["<|end|>"])
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(pieces) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(len(pieces) - 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@llama_cpp.llama_log_callback
def quiet(_level: int, _text: bytes, _data: object) -> None:
    """llama.cpp's own messages are not of interest here."""


def main() -> None:
    llama_cpp.llama_log_set(quiet, None)
    json.loads(ANSWER)
    for size in (32_000, 150_000):
        pieces = vocabulary(size)
        tokens = tokens_of(ANSWER, pieces)
        print(f"{size} tokens; the text has {len(tokens)}")
        measure_llguidance(pieces)
        measure_llama_cpp(pieces, tokens)


if __name__ == "__main__":
    main()
