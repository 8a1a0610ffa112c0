"""The files of LoRA adapters, read as those of models are."""

from pathlib import Path

from xinfer_runtime.catalog.gguf_facts import GgufFile
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.errors import ModelFileError
from xinfer_runtime.models import LoraAdapter


def adapter_path(adapter: LoraAdapter) -> Path:
    return Path(adapter.path).expanduser().absolute()


def read_adapter(path: Path) -> GgufFile:
    """What the header of an adapter says. Raises ModelFileError for a file that is no LoRA adapter."""
    try:
        file = read_gguf(path)
    except ModelFileError as error:
        raise ModelFileError(error.message, param="lora", place=error.place) from error
    if file.metadata.get("general.type") != "adapter" or file.metadata.get("adapter.type") != "lora":
        raise ModelFileError(f"{path.name} is a GGUF file, and no LoRA adapter", param="lora", place=str(path))
    return file
