"""A tiny vision transformer with random weights and its projector, in LLaVA's manner, written as GGUF; and images."""

import io
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from PIL import Image

IMAGE_TOKENS = 16
"""Of each image: four times four patches."""
_SIZE, _PATCH, _WIDTH, _INNER, _HEADS, _LAYERS = 32, 8, 32, 64, 2, 2


def write_projector(
    path: Path,
    text_width: int = 64,
    seed: int = 1,
    projector: str = "mlp",
    changed: dict[str, Any] | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Path:
    """`changed` are other numbers below `clip.vision.` than the right ones, `shapes` other shapes of tensors."""
    rng = np.random.default_rng(seed)
    numbers = {
        "image_size": _SIZE,
        "patch_size": _PATCH,
        "embedding_length": _WIDTH,
        "feed_forward_length": _INNER,
        "block_count": _LAYERS,
        "attention.head_count": _HEADS,
        "projection_dim": text_width,
        **(changed or {}),
    }
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", projector)
    writer.add_bool("clip.use_gelu", True)
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def tensor(name: str, *shape: int, scale: float = 0.3) -> None:
        shape = (shapes or {}).get(name, shape)
        writer.add_tensor(name, (rng.standard_normal(shape) * scale).astype(np.float32))

    tensor("v.class_embd", _WIDTH)
    tensor("v.patch_embd.weight", _WIDTH, 3, _PATCH, _PATCH, scale=0.1)
    tensor("v.position_embd.weight", IMAGE_TOKENS + 1, _WIDTH)
    for norm in ("v.pre_ln", "v.post_ln", *(f"v.blk.{i}.ln{j}" for i in range(_LAYERS) for j in (1, 2))):
        writer.add_tensor(f"{norm}.weight", np.ones(_WIDTH, dtype=np.float32))
        writer.add_tensor(f"{norm}.bias", np.zeros(_WIDTH, dtype=np.float32))
    for block in (f"v.blk.{i}" for i in range(_LAYERS)):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensor(f"{block}.{name}.weight", _WIDTH, _WIDTH)
        tensor(f"{block}.ffn_up.weight", _INNER, _WIDTH)
        tensor(f"{block}.ffn_down.weight", _WIDTH, _INNER)
    tensor("mm.0.weight", text_width, _WIDTH)
    tensor("mm.0.bias", text_width)
    tensor("mm.2.weight", text_width, text_width)
    tensor("mm.2.bias", text_width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def picture(seed: int, kind: str = "PNG", size: tuple[int, int] = (48, 40)) -> bytes:
    """An image of coarse noise, another one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(file, kind)
    return file.getvalue()
