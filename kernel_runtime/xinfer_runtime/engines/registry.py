"""The engines there are, by name. An engine's library is imported when the engine is made, not before."""

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path

from xinfer_runtime.engines.base import Engine
from xinfer_runtime.errors import EngineError, InvalidRequest

ENGINES: tuple[str, ...] = ("llama.cpp",)

_LIBRARIES = {"llama.cpp": ("llama_cpp", "llama-cpp-python")}
_GPU_BACKENDS = ("cuda", "hip", "metal", "musa", "sycl", "vulkan")
"""The ends of the names of llama.cpp's own libraries for GPUs."""


def canonical_name(name: str) -> str:
    """The name in ENGINES that `name` means, in any case, with `_`, `-` or `.`. Raises InvalidRequest for none."""
    plain = name.strip().lower().replace("_", ".").replace("-", ".")
    if plain not in ENGINES:
        raise InvalidRequest(f"Unknown engine {name!r:.120}; there is {', '.join(ENGINES)}", param="model_engine")
    return plain


def create_engine(name: str, model_type: str = "LLM") -> Engine:
    """A new engine for models of that type, not loaded yet.

    Raises InvalidRequest for an unknown name, EngineError when its library is missing.
    """
    if canonical_name(name) == "llama.cpp":
        try:
            # Before numpy: with a CUDA build the other order crashes at every model load.
            importlib.import_module("llama_cpp")
        except ImportError as error:
            raise EngineError(
                f"The llama.cpp engine needs llama-cpp-python here ({error}). Install it: "
                "pip install 'jupyter-xinfer[llama-cpp]'"
            ) from error
        if model_type != "LLM":
            from xinfer_runtime.engines.llama_cpp.embedding_engine import EmbeddingEngine

            return EmbeddingEngine()
        from xinfer_runtime.engines.llama_cpp.engine import LlamaCppEngine

        return LlamaCppEngine()
    raise AssertionError(f"{name} is listed and not made")


def installed_engines() -> dict[str, tuple[str, bool]]:
    """The engines whose library is installed here: its version, and whether it was built for GPUs.

    Nothing is imported for it: that would take seconds, and memory of every GPU.
    """
    found = {}
    for name, (module, distribution) in _LIBRARIES.items():
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            continue
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        libraries = Path(spec.submodule_search_locations[0]).glob("lib/*ggml-*")
        found[name] = version, any(each.name.partition("ggml-")[2].startswith(_GPU_BACKENDS) for each in libraries)
    return found
