"""A draft model beside the model that it guesses for."""

from functools import partial
from pathlib import Path

from xinfer_runtime.catalog.draft_file import other_vocabulary
from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.engines.llama_cpp import sizing
from xinfer_runtime.engines.llama_cpp.context import Context
from xinfer_runtime.engines.llama_cpp.cores import choose_threads
from xinfer_runtime.engines.llama_cpp.draft_model import DraftModel
from xinfer_runtime.engines.llama_cpp.offload import Offload
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.passes import ATTENTION_TILE
from xinfer_runtime.engines.llama_cpp.weights import Weights, load_weights
from xinfer_runtime.errors import ModelFileError
from xinfer_runtime.models import ModelSpec


def load_draft(
    file: GgufFile, path: Path, weights: Weights, cache: tuple[int, int], spec: ModelSpec, offload: Offload, cores: int
) -> tuple[DraftModel, int]:
    """The draft model of `file` for the model of these `weights`, from `path`, and the bytes that it takes.

    `cache` are its cells and sequences, `offload` where it goes. Raises ModelFileError for one that cannot be used with
    this model.
    """
    options = Options.of(spec)
    try:
        draft = load_weights(file.path, offload, lambda _: True)
    except ModelFileError as error:
        raise ModelFileError(error.message, param="draft_model") from error
    try:
        _check(draft, file.path, weights, path)
        cells, sequences = cache
        threads = partial(choose_threads, draft.bytes, fixed=options.threads, on_gpu=offload.on_gpu)
        context = Context(
            draft,
            cells,
            sequences,
            sizing.draft_token_budget(sequences),
            threads(cores),
            attention_tile=None if offload.on_gpu else ATTENTION_TILE,
            flash_attention=options.flash_attention,
        )
    except BaseException:
        draft.free()
        raise
    return DraftModel(draft, context, sequences, weights.vocabulary.size, threads), context.memory_bytes


def _check(draft: Weights, draft_path: Path, weights: Weights, path: Path) -> None:
    if not draft.shares_prefixes:
        raise ModelFileError(
            f"{draft_path.name} has recurrent layers or a sliding window, so that its cache cannot forget what was "
            "guessed wrong: it cannot be a draft model",
            param="draft_model",
        )
    token = weights.vocabulary.first_difference(draft.vocabulary)
    if token is not None:
        ours, its = weights.vocabulary.text(token), draft.vocabulary.text(token)
        raise other_vocabulary(draft_path, path, f"its token {token} is {its!r:.40} and the model's {ours!r:.40}")
