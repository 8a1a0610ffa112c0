"""The demo model's network: a small Llama, written so that its tensors go into a GGUF file unchanged.

llama.cpp's `llama` architecture rotates adjacent pairs of a head's dimensions (rope type NORM). This module does
the same, so that the query and key weights need no permutation at export (files converted from Hugging Face
checkpoints, which rotate the two halves of a head, do).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the network. Rows of q8_0 tensors are multiples of 32, so every size here must be one too."""

    vocab_size: int
    dim: int = 256
    n_layers: int = 5
    n_heads: int = 4
    n_kv_heads: int = 2
    ffn_dim: int = 512
    context: int = 1024
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_heads


def rotary_angles(shape: ModelShape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each of shape (length, head_dim / 2)."""
    frequencies = shape.rope_base ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies[None, :]
    return angles.cos(), angles.sin()


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (0, 1), (2, 3), ... of the last dimension of `x`: (batch, length, heads, head_dim)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None, :].to(x.dtype), sin[:, None, :].to(x.dtype)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Block(nn.Module):
    """One transformer layer: grouped-query attention, then a SwiGLU feed-forward network, both pre-normed."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        kv_dim = shape.n_kv_heads * shape.head_dim
        self.attn_norm = nn.RMSNorm(shape.dim, eps=shape.norm_eps)
        self.attn_q = nn.Linear(shape.dim, shape.dim, bias=False)
        self.attn_k = nn.Linear(shape.dim, kv_dim, bias=False)
        self.attn_v = nn.Linear(shape.dim, kv_dim, bias=False)
        self.attn_output = nn.Linear(shape.dim, shape.dim, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.dim, eps=shape.norm_eps)
        self.ffn_gate = nn.Linear(shape.dim, shape.ffn_dim, bias=False)
        self.ffn_up = nn.Linear(shape.dim, shape.ffn_dim, bias=False)
        self.ffn_down = nn.Linear(shape.ffn_dim, shape.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (batch, length, dim) to the same shape."""
        batch, length, _ = x.shape
        shape = self.shape
        h = self.attn_norm(x)
        q = rotate_pairs(self.attn_q(h).view(batch, length, shape.n_heads, shape.head_dim), cos, sin)
        k = rotate_pairs(self.attn_k(h).view(batch, length, shape.n_kv_heads, shape.head_dim), cos, sin)
        v = self.attn_v(h).view(batch, length, shape.n_kv_heads, shape.head_dim)
        groups = shape.n_heads // shape.n_kv_heads
        k, v = (t.repeat_interleave(groups, dim=2).transpose(1, 2) for t in (k, v))
        mixed = functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, length, shape.dim))
        h = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))


class DemoModel(nn.Module):
    """A Llama with tied input and output embeddings."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab_size, shape.dim)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.output_norm = nn.RMSNorm(shape.dim, eps=shape.norm_eps)
        cos, sin = rotary_angles(shape, shape.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal initialisation; the projections that end a residual branch start smaller, by depth."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            std = 0.02
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                std /= math.sqrt(2 * self.shape.n_layers)
            nn.init.normal_(parameter, std=std)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Final normed states, (batch, length, dim), for token ids of shape (batch, length)."""
        length = tokens.shape[1]
        cos, sin = self.get_buffer("cos")[:length], self.get_buffer("sin")[:length]
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin)
        normed: Tensor = self.output_norm(x)
        return normed

    def forward(self, tokens: Tensor) -> Tensor:
        """Next-token logits, (batch, length, vocab_size)."""
        return functional.linear(self.hidden(tokens), self.token_embd.weight)
