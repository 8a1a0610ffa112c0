"""Variants of a GGUF model: the same metadata, other tensors."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Tensor = tuple[str, NDArray[Any], gguf.GGMLQuantizationType]
"""Name, values as they are stored, and their type."""


def rewrite(reader: gguf.GGUFReader, target: Path, tensors: Iterable[Tensor], changed: Mapping[str, Any] = {}) -> Path:
    """Write `target` with the metadata of `reader`, of which some is `changed`."""
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            items = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, changed.get(name, field.contents()), field.types[0], sub_type=items)
    for name, values, kind in tensors:
        writer.add_tensor(name, np.ascontiguousarray(values), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def in_full_precision(source: Path, target: Path) -> Path:
    """The model with its weights in f32: what is computed then hardly depends on what else is in the pass."""
    reader = gguf.GGUFReader(source)
    tensors = (
        (each.name, gguf.dequantize(each.data, each.tensor_type).astype(np.float32), gguf.GGMLQuantizationType.F32)
        for each in reader.tensors
    )
    return rewrite(reader, target, tensors, {"general.file_type": int(gguf.LlamaFileType.ALL_F32)})


def deeper(source: Path, target: Path, layers: int) -> Path:
    """The model with so many layers more, which cost time and change nothing: what they add is zero."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    count = reader.fields[f"{architecture}.block_count"].contents()
    tensors = [(each.name, each.data, each.tensor_type) for each in reader.tensors]
    first = [tensor for tensor in tensors if tensor[0].startswith("blk.0.")]
    for layer in range(count, count + layers):
        for name, values, kind in first:
            silent = ".attn_output." in name or ".ffn_down." in name
            tensors.append((name.replace("blk.0.", f"blk.{layer}."), np.zeros_like(values) if silent else values, kind))
    return rewrite(reader, target, tensors, {f"{architecture}.block_count": count + layers})


def contrary(source: Path, target: Path) -> Path:
    """The model with its logits turned round: what it finds most likely is what the other finds least likely."""
    reader = gguf.GGUFReader(source)
    tensors = (
        (each.name, -each.data if each.name == "output_norm.weight" else each.data, each.tensor_type)
        for each in reader.tensors
    )
    return rewrite(reader, target, tensors)
