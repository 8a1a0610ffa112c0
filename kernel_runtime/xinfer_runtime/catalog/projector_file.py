"""The file of a multimodal projector, which makes of an image what a model takes in place of tokens.

libmtmd looks at few of its numbers and at none of its tensors' shapes, and ends the process where they do not fit, so
they are looked at here.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.gguf_metadata import Value
from xinfer_runtime.catalog.gguf_tensors import Tensor
from xinfer_runtime.errors import ModelFileError

PARAM = "multimodal_projector"

_NOT_CAUSAL = frozenset({"gemma3", "gemma4v", "gemma4uv", "deepseek4v"})
_GRID_POSITIONS = frozenset(
    {"qwen2vl_merger", "qwen2.5vl_merger", "qwen2.5o", "qwen3vl_merger", "glm4v", "paddleocr", "hunyuanvl"}
)
_LIMITS = {
    "embedding_length": 1 << 16,
    "feed_forward_length": 1 << 18,
    "block_count": 512,
    "attention.head_count": 1 << 10,
    "image_size": 1 << 12,
    "patch_size": 1 << 9,
}
_SQUARE = re.compile(r"v\.blk\.(\d+)\.attn_(?:q|k|v|out)\.weight")
_VECTOR = re.compile(r"v\.(?:blk\.\d+\.(?:ln[12]|attn_(?:q|k|v|out))\.(?:weight|bias)|(?:pre|post)_ln\.\w+|class_embd)")
_FEED_FORWARD = re.compile(r"v\.blk\.\d+\.ffn_(?:up|down|gate)\.weight")


def projector_path(projector: str, model: Path) -> Path:
    """Where a projector is: a path that is not absolute starts beside the file of the model."""
    return model.absolute().parent / projector


def read_projector(path: Path, model: GgufFile) -> GgufFile:
    """The header of the projector at `path` for a model.

    Raises ModelFileError, with `multimodal_projector` as its param, for a file that is missing, broken, of another
    model, or of a kind that the engine cannot use.
    """
    try:
        file = read_gguf(path)
    except ModelFileError as error:
        raise ModelFileError(error.message, param=PARAM, place=error.place) from error
    for what in _faults(file, model):
        raise ModelFileError(f"{path.name} cannot be used as a projector: {what}", param=PARAM, place=str(path))
    return file


def patches(file: GgufFile) -> int:
    """Of the square image that its transformer was trained for, the first token for all of them included."""
    return (vision_number(file, "image_size") // vision_number(file, "patch_size")) ** 2 + 1


def vision_number(file: GgufFile, name: str) -> int:
    """A whole number below `clip.vision.`, 0 where there is none."""
    value = file.metadata.get(f"clip.vision.{name}")
    return value if isinstance(value, int) else 0


def _faults(file: GgufFile, model: GgufFile) -> Iterator[str]:
    metadata = file.metadata
    if file.architecture != "clip" or metadata.get("clip.has_vision_encoder") is not True:
        yield "it is a GGUF file, and none that makes something of images"
        return
    kind = metadata.get("clip.projector_type") or metadata.get("clip.vision.projector_type")
    if not isinstance(kind, str):
        yield "it does not say of which type it is"
        return
    if kind in _NOT_CAUSAL:
        yield f"its type, {kind}, lets the parts of an image see those after them, which this engine does not compute"
    if kind in _GRID_POSITIONS:
        yield f"its type, {kind}, has positions in two dimensions (M-RoPE), which this engine does not compute"
    for name, most in _LIMITS.items():
        if not 1 <= vision_number(file, name) <= most:
            yield f"clip.vision.{name} is {metadata.get(f'clip.vision.{name}')!r:.40}, and no number from 1 to {most}"
    if vision_number(file, "patch_size") > vision_number(file, "image_size"):
        yield "its patches are larger than its images"
    if vision_number(file, "embedding_length") % vision_number(file, "attention.head_count"):
        yield "its attention heads do not divide its embedding length"
    for name in ("image_mean", "image_std"):
        if not _are_three(metadata.get(f"clip.vision.{name}"), positive=name == "image_std"):
            yield f"clip.vision.{name} is not a number for each of three colours"
    yield from _shape_faults(file)
    if kind == "mlp":
        yield from _mlp_faults(file, model)


def _are_three(value: Value | None, positive: bool) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(each, float) and math.isfinite(each) and (each > 0 or not positive) for each in value)
    )


def _shape_faults(file: GgufFile) -> Iterator[str]:
    """Tensors of the vision transformer whose shapes do not follow from its numbers."""
    width, inner = vision_number(file, "embedding_length"), vision_number(file, "feed_forward_length")
    patch, layers = vision_number(file, "patch_size"), vision_number(file, "block_count")
    plain = "clip.vision.attention.head_count_kv" not in file.metadata
    for tensor in file.tensors:
        if found := _SQUARE.fullmatch(tensor.name):
            if int(found[1]) >= layers:
                yield f"it has tensors of layer {found[1][:10]}, and {layers} layers"
            yield from _unless(tensor, (width, width), when=plain)
        elif _VECTOR.fullmatch(tensor.name):
            yield from _unless(tensor, (width,), when=plain)
        elif _FEED_FORWARD.fullmatch(tensor.name):
            # Old files have the two matrices under each other's names.
            yield from _unless(tensor, (width, inner), (inner, width))
        elif tensor.name == "v.patch_embd.weight":
            yield from _unless(tensor, (patch, patch, 3, width), when=len(tensor.shape) == 4)
    positions = next((each for each in file.tensors if each.name == "v.position_embd.weight"), None)
    if positions is not None and len(positions.shape) == 2 and positions.shape[0] != width:
        yield f"v.position_embd.weight has rows of {positions.shape[0]} numbers, not {width}"


def _mlp_faults(file: GgufFile, model: GgufFile) -> Iterator[str]:
    """Of LLaVA's projector: two matrices, from the width of the transformer to that of the model."""
    tensors = {tensor.name: tensor for tensor in file.tensors}
    if "mm.3.weight" in tensors:
        return  # Yi's, with norms between them: libmtmd says what is wrong with it.
    first, second = tensors.get("mm.0.weight"), tensors.get("mm.2.weight")
    if first is None or second is None or len(first.shape) != 2:
        yield "it lacks the tensors of its projector"
        return
    yield from _unless(first, (vision_number(file, "embedding_length"), first.shape[1]))
    yield from _unless(second, (first.shape[1], model.embedding_length))
    positions = tensors.get("v.position_embd.weight")
    rows = patches(file) - ("v.class_embd" not in tensors)
    if positions is None or len(positions.shape) != 2 or positions.shape[1] < rows:
        yield f"its images have {rows} patches, and it has not as many positions"


def _unless(tensor: Tensor, *shapes: tuple[int, ...], when: bool = True) -> Iterator[str]:
    if when and tensor.shape not in shapes:
        wanted = " or ".join(" x ".join(map(str, shape)) for shape in shapes)
        yield f"its tensor {tensor.name[:80]} is {' x '.join(map(str, tensor.shape))}, not {wanted}"
