"""The options of `jupyter xinfer launch` that are the llama.cpp engine's."""

import argparse
from typing import Any

_CACHE_TYPES = ("f16", "q8_0", "q4_0")
_NAMES = (
    "max_sequences",
    "prefix_store_bytes",
    "cache_type_k",
    "cache_type_v",
    "flash_attention",
    "n_gpu_layers",
    "split_mode",
    "main_gpu",
    "tensor_split",
    "pooling",
    "speculation",
    "draft_model",
    "draft_tokens",
    "multimodal_projector",
)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-sequences", type=int, metavar="N", help="requests in one batch")
    parser.add_argument(
        "--prefix-store-bytes", type=int, metavar="N", help="host memory for prefixes that the KV cache has no room for"
    )
    parser.add_argument("--cache-type-k", choices=_CACHE_TYPES, help="how keys are stored")
    parser.add_argument("--cache-type-v", choices=_CACHE_TYPES, help="how values are stored")
    parser.add_argument("--flash-attention", choices=("auto", "on", "off"))
    parser.add_argument(
        "--n-gpu-layers", type=_layers, metavar="N", help='layers on GPUs: "auto", a number, -1 for all'
    )
    parser.add_argument("--split-mode", choices=("layer", "row", "none"), help="how several GPUs share the model")
    parser.add_argument("--main-gpu", type=int, metavar="N", help="the GPU that has it all, with --split-mode none")
    parser.add_argument("--tensor-split", type=_parts, metavar="N,N", help="the part of each GPU")
    parser.add_argument("--pooling", choices=("mean", "cls", "last", "rank"), help="of an embedding model")
    parser.add_argument("--speculation", choices=("off", "prompt-lookup", "draft-model"), help="how tokens are guessed")
    parser.add_argument("--draft-model", metavar="NAME", help="the smaller model that guesses: a name, or a GGUF file")
    parser.add_argument("--draft-tokens", type=int, metavar="N", help="tokens guessed at once, at most")
    parser.add_argument(
        "--multimodal-projector", metavar="FILE", help="lets the model see images: a GGUF file, also beside the model's"
    )
    parser.add_argument(
        "--lora", type=_adapter, action="append", default=[], metavar="NAME=FILE", help="an adapter; may be repeated"
    )


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given of them, as fields of a launch."""
    given = {name: value for name in _NAMES if (value := getattr(arguments, name)) is not None}
    return {**given, "lora": dict(arguments.lora)} if arguments.lora else given


def _layers(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor "auto"') from None


def _parts(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers with commas between them") from None


def _adapter(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=FILE")
    return name, path
