"""What a model file is for: text, vectors or ranking; and how the vectors of tokens become one for their text."""

from collections.abc import Mapping
from typing import Literal

from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import ModelSpec

LLM = "LLM"
EMBEDDING = "embedding"
RERANK = "rerank"
MODEL_TYPES = (LLM, EMBEDDING, RERANK)
"""Xinference's words, which `ModelSpec.type` has."""

ABILITIES: Mapping[str, tuple[str, ...]] = {EMBEDDING: ("embed",), RERANK: ("rerank",)}
"""What models can do that generate no text."""

Pooling = Literal["mean", "cls", "last", "rank"]
"""A text's vector is the mean of its tokens' vectors, the first or the last token's; or a head makes a score of it."""

ENCODERS = frozenset(
    {
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "gemma-embedding",
    }
)
"""Architectures that look at all of a text at once and have no KV cache: they cannot generate."""

_POOLINGS: Mapping[int, Pooling] = {1: "mean", 2: "cls", 3: "last", 4: "rank"}


def model_type(file: GgufFile, spec: ModelSpec) -> str:
    """One of MODEL_TYPES: what the launch asks for, else what the file was made for.

    Raises InvalidRequest where the file cannot be that.
    """
    asked = spec.engine_options.get("pooling")
    made_for = _made_for(file)
    wanted = spec.type if spec.type != LLM else RERANK if asked == "rank" else EMBEDDING if asked else made_for
    if (wanted == RERANK) != (asked == "rank") and asked is not None:
        raise InvalidRequest(f"pooling {asked} is not for a model_type of {wanted}", param="pooling")
    if wanted == RERANK and not _ranks(file):
        raise InvalidRequest(
            f"{spec.name} has no head that ranks: it cannot be launched as {RERANK}, it is made for {made_for}",
            param="model_type",
        )
    return wanted


def pooling_of(file: GgufFile, spec: ModelSpec) -> Pooling:
    """How an embedding model or a reranker pools: as the launch says, as the file says, or as such models mostly do."""
    if spec.type == RERANK:
        return "rank"
    asked: Pooling | None = spec.engine_options.get("pooling")
    said = _POOLINGS.get(file.pooling_number)
    if asked is not None:
        return asked
    if said is not None and said != "rank":
        return said
    return "mean" if is_encoder(file) else "last"


def is_encoder(file: GgufFile) -> bool:
    return file.architecture in ENCODERS


def _made_for(file: GgufFile) -> str:
    pooling = _POOLINGS.get(file.pooling_number)
    if pooling == "rank":
        return RERANK
    return EMBEDDING if pooling is not None or is_encoder(file) else LLM


def _ranks(file: GgufFile) -> bool:
    return any(tensor.name in ("cls.weight", "cls.output.weight") for tensor in file.tensors)
