"""Write a trained checkpoint as a GGUF file: `python -m demo_model.export --from DIR --to FILE`."""

import argparse
from pathlib import Path

import gguf
import numpy as np

from demo_model.model import DemoModel
from demo_model.template import template_source
from demo_model.tokenizer import CONTROL_TOKENS, PRE_TOKENIZER, SPECIAL_TOKENS, Tokenizer
from demo_model.train import load_model

NAME = "xinfer-demo"
LARGEST_FILE = 8_000_000


def _token_types(tokenizer: Tokenizer) -> list[gguf.TokenType]:
    types = [gguf.TokenType.NORMAL] * tokenizer.vocab_size
    for token in SPECIAL_TOKENS:
        kind = gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.USER_DEFINED
        types[tokenizer.ids[token]] = kind
    return types


def write_gguf(model: DemoModel, tokenizer: Tokenizer, path: Path) -> None:
    """Write model, vocabulary and chat template: matrices as q8_0, norms as f32, no output tensor (it is tied).

    Raises ValueError if the file is larger than LARGEST_FILE bytes.
    """
    shape = model.shape
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(NAME)
    writer.add_description("A tiny demo model trained on generated text; part of jupyter-xinfer.")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.ffn_dim)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(_token_types(tokenizer))
    writer.add_token_merges([f"{left} {right}" for left, right in tokenizer.merges])
    writer.add_eos_token_id(tokenizer.ids["<|im_end|>"])
    writer.add_eot_token_id(tokenizer.ids["<|im_end|>"])
    writer.add_pad_token_id(tokenizer.ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template_source())
    for name, parameter in model.named_parameters():
        data = parameter.detach().float().numpy()
        if data.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(data))
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST_FILE}: make the model smaller")


def main(argv: list[str] | None = None) -> None:
    """Export the checkpoint of a training folder."""
    parser = argparse.ArgumentParser(description="Export the demo model to GGUF.")
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the training's --out folder")
    parser.add_argument("--to", type=Path, required=True, help="the GGUF file to write")
    options = parser.parse_args(argv)
    tokenizer = Tokenizer.load(options.source / "tokenizer.json")
    write_gguf(load_model(options.source / "checkpoint.pt"), tokenizer, options.to)
    print(f"{options.to}: {options.to.stat().st_size} bytes")


if __name__ == "__main__":
    main()
