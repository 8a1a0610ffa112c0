"""A BERT with random weights as GGUF, for every way of pooling: `write(path, pooling="rank")`."""

from pathlib import Path

import gguf
import numpy as np
from bench.embedding.packaged_model import add_word_pieces
from numpy.typing import NDArray

POOLINGS = {
    "mean": gguf.PoolingType.MEAN,
    "cls": gguf.PoolingType.CLS,
    "last": gguf.PoolingType.LAST,
    "rank": gguf.PoolingType.RANK,
}
LETTERS = "abcdefghijklmnopqrstuvwxyz.,?"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{each}" for each in LETTERS)]
EPSILON = 1e-12


def weights(
    width: int = 64, layers: int = 2, inner: int = 128, context: int = 128, seed: int = 1
) -> dict[str, NDArray[np.float32]]:
    """The tensors by their names in GGUF, those of a head that ranks included."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    found = {
        "token_embd.weight": normal(len(VOCABULARY), width, scale=1.0),
        "position_embd.weight": normal(context, width, scale=0.3),
        "token_types.weight": normal(2, width, scale=0.1),
        "token_embd_norm.weight": 1 + normal(width, scale=0.1),
        "token_embd_norm.bias": normal(width, scale=0.1),
        "cls.weight": normal(width, width, scale=0.2),
        "cls.bias": normal(width, scale=0.1),
        "cls.output.weight": normal(1, width, scale=0.5),
        "cls.output.bias": normal(1, scale=0.1),
    }
    for layer in range(layers):
        for name, rows, columns in (
            ("attn_q", width, width),
            ("attn_k", width, width),
            ("attn_v", width, width),
            ("attn_output", width, width),
            ("ffn_up", inner, width),
            ("ffn_down", width, inner),
        ):
            found[f"blk.{layer}.{name}.weight"] = normal(rows, columns, scale=0.2)
            found[f"blk.{layer}.{name}.bias"] = normal(rows, scale=0.1)
        for name in ("attn_output_norm", "layer_output_norm"):
            found[f"blk.{layer}.{name}.weight"] = 1 + normal(width, scale=0.1)
            found[f"blk.{layer}.{name}.bias"] = normal(width, scale=0.1)
    return found


def write(path: Path, pooling: str | None = "mean", heads: int = 4, **shape: int) -> Path:
    """`pooling` None leaves it open in the file."""
    tensors = weights(**shape)
    layers = sum(name.endswith("attn_q.weight") for name in tensors)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("random encoder")
    writer.add_context_length(tensors["position_embd.weight"].shape[0])
    writer.add_embedding_length(tensors["token_embd.weight"].shape[1])
    writer.add_feed_forward_length(tensors["blk.0.ffn_up.weight"].shape[0])
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if pooling is not None:
        writer.add_pooling_type(POOLINGS[pooling])
    add_word_pieces(writer, VOCABULARY, token_types=2)
    for name, values in tensors.items():
        if pooling == "rank" or not name.startswith("cls"):
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
