"""BERT in numpy, straight from the paper's formulas: what llama.cpp's vectors are compared with."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_erf = np.vectorize(math.erf)


def encode(tensors: Mapping[str, NDArray[np.float32]], tokens: Sequence[int], heads: int, epsilon: float) -> Array:
    """A vector of each token, shape (tokens, width)."""

    def norm(values: Array, name: str) -> Array:
        centred = values - values.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return np.asarray(scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"])

    def linear(values: Array, name: str) -> Array:
        return np.asarray(values @ tensors[f"{name}.weight"].T.astype(np.float64) + tensors[f"{name}.bias"])

    count = len(tokens)
    hidden = tensors["token_embd.weight"][list(tokens)] + tensors["position_embd.weight"][:count]
    hidden = norm(np.asarray(hidden + tensors["token_types.weight"][0], dtype=np.float64), "token_embd_norm")
    width = hidden.shape[1] // heads
    for layer in range(sum(name.endswith("attn_q.weight") for name in tensors)):
        block = f"blk.{layer}"
        q, k, v = (
            linear(hidden, f"{block}.{name}").reshape(count, heads, width).transpose(1, 0, 2)
            for name in ("attn_q", "attn_k", "attn_v")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(width)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ v
        mixed = linear(mixed.transpose(1, 0, 2).reshape(count, -1), f"{block}.attn_output")
        hidden = norm(hidden + mixed, f"{block}.attn_output_norm")
        inner = linear(hidden, f"{block}.ffn_up")
        inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
        hidden = norm(hidden + linear(inner, f"{block}.ffn_down"), f"{block}.layer_output_norm")
    return hidden


def pool(tensors: Mapping[str, NDArray[np.float32]], hidden: Array, pooling: str) -> Array:
    """The vector of the text, of length 1; of a reranker its score, before it is scaled."""
    if pooling == "rank":
        inner = np.tanh(hidden[0] @ tensors["cls.weight"].T + tensors["cls.bias"])
        return np.asarray(inner @ tensors["cls.output.weight"].T + tensors["cls.output.bias"])
    vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
    return np.asarray(vector / np.linalg.norm(vector))
