"""A tiny Llama with random weights, written as GGUF: a vocabulary of all 256 bytes, so that any UTF-8 can come out."""

from pathlib import Path

import gguf
import llama_cpp  # noqa: F401
import numpy as np
import pytest

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_symbols() -> list[str]:
    """The characters that byte-level BPE writes the 256 bytes with (as in GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_model(path: Path, context_length: int = 512, template: str | None = TEMPLATE, seed: int = 1) -> Path:
    width, layers, heads, kv_heads, inner = 64, 2, 4, 2, 128
    rng = np.random.default_rng(seed)
    symbols = byte_symbols()
    tokens = [*symbols, "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "th"]
    kinds = (
        [gguf.TokenType.NORMAL] * 256
        + [gguf.TokenType.CONTROL] * 3
        + [gguf.TokenType.USER_DEFINED] * 2
        + [gguf.TokenType.NORMAL]
    )

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(258)
    writer.add_bos_token_id(256)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)

    def tensor(name: str, *shape: int, scale: float) -> None:
        writer.add_tensor(name, (rng.standard_normal(shape) * scale).astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), width, scale=1.0)
    for layer in range(layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        tensor(f"{block}.attn_q.weight", width, width, scale=0.3)
        tensor(f"{block}.attn_k.weight", width * kv_heads // heads, width, scale=0.3)
        tensor(f"{block}.attn_v.weight", width * kv_heads // heads, width, scale=0.3)
        tensor(f"{block}.attn_output.weight", width, width, scale=0.3)
        tensor(f"{block}.ffn_gate.weight", inner, width, scale=0.2)
        tensor(f"{block}.ffn_up.weight", inner, width, scale=0.2)
        tensor(f"{block}.ffn_down.weight", width, inner, scale=0.2)
    ones("output_norm.weight")
    tensor("output.weight", len(tokens), width, scale=0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-f32.gguf")
