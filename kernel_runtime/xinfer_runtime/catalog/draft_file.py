"""The file of a draft model: found as a model's own is, by the name of a packaged model or by path."""

from pathlib import Path

from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.locate import locate
from xinfer_runtime.errors import ModelFileError
from xinfer_runtime.models import ModelSpec

MORE_TOKENS = 128
"""By which the vocabularies may differ in size: files of one family are padded to different lengths."""

_PARAM = "draft_model"


def read_draft(draft_model: str, path: Path, file: GgufFile) -> GgufFile:
    """The header of the draft model for the model `file` at `path`.

    Raises ModelFileError, with `draft_model` as its param, for a file that is missing, broken, or of another vocabulary
    as far as the header's numbers show it.
    """
    is_file = draft_model.lower().endswith(".gguf")
    wanted = ModelSpec(
        uid="", name=draft_model, format="ggufv2", path=str(Path(draft_model).expanduser()) if is_file else ""
    )
    try:
        found = locate(wanted)
        draft = read_gguf(found)
    except ModelFileError as error:
        raise ModelFileError(f"draft_model: {error.message}", param=_PARAM, place=error.place) from error
    for what, its, ours in (
        ("tokenizer", draft.metadata.get("tokenizer.ggml.model"), file.metadata.get("tokenizer.ggml.model")),
        ("way of splitting texts", draft.metadata.get("tokenizer.ggml.pre"), file.metadata.get("tokenizer.ggml.pre")),
    ):
        if its != ours:
            raise other_vocabulary(found, path, f"its {what} is {its!r:.40} and the model's {ours!r:.40}")
    if abs(draft.vocab_size - file.vocab_size) > MORE_TOKENS:
        raise other_vocabulary(found, path, f"it has {draft.vocab_size} tokens and the model {file.vocab_size}")
    return draft


def other_vocabulary(draft: Path, path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"The draft model {draft.name} has another vocabulary than {path.name}: {why}. "
        "Take a smaller model of the same family.",
        param=_PARAM,
        place=f"{draft}, {path}",
    )
