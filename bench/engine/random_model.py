"""Write a Llama with random weights as GGUF, for measurements: `python bench/engine/random_model.py 0.5b out.gguf`.

What it says is noise, but it computes what a trained model of its shape computes. It never ends a text of its own
accord when the choice is greedy, and prompts are given as token ids.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocab: int = 32000


SHAPES = {
    "15m": Shape(layers=6, width=288, heads=6, kv_heads=6, inner=768),
    "125m": Shape(layers=12, width=768, heads=12, kv_heads=12, inner=2048),
    "0.5b": Shape(layers=24, width=896, heads=14, kv_heads=2, inner=4864),
}


QUANTIZATIONS = {
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}


def write(path: Path, shape: Shape, *, quantization: str = "f16", seed: int = 1) -> None:
    """`quantization` is one of `QUANTIZATIONS`; norms stay f32."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    letters = [chr(code) for code in range(33, 127)]
    writer.add_token_list(letters + [f"<t{i}>" for i in range(shape.vocab - len(letters))])
    writer.add_token_types([gguf.TokenType.NORMAL] * (shape.vocab - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(shape.vocab - 1)

    kind = QUANTIZATIONS[quantization]

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        if name == "output.weight":
            values[-1] = 0.0  # A logit of zero is never the largest, so the text does not end.
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.width, dtype=np.float32))

    kv_width = shape.width * shape.kv_heads // shape.heads
    matrix("token_embd.weight", shape.vocab, shape.width)
    for layer in range(shape.layers):
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
        matrix(f"blk.{layer}.attn_q.weight", shape.width, shape.width)
        matrix(f"blk.{layer}.attn_k.weight", kv_width, shape.width)
        matrix(f"blk.{layer}.attn_v.weight", kv_width, shape.width)
        matrix(f"blk.{layer}.attn_output.weight", shape.width, shape.width)
        matrix(f"blk.{layer}.ffn_gate.weight", shape.inner, shape.width)
        matrix(f"blk.{layer}.ffn_up.weight", shape.inner, shape.width)
        matrix(f"blk.{layer}.ffn_down.weight", shape.width, shape.inner)
    norm("output_norm.weight")
    matrix("output.weight", shape.vocab, shape.width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("path", type=Path)
    parser.add_argument("--quantization", choices=QUANTIZATIONS, default="f16")
    options = parser.parse_args()
    write(options.path, SHAPES[options.shape], quantization=options.quantization)
    print(f"{options.path}: {options.path.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
