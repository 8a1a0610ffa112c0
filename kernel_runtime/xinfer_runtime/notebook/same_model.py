"""Whether a launch asks for a model that runs: notebooks are run again from the top."""

import argparse
from collections.abc import Iterable
from pathlib import PurePath

from xinfer_runtime.client.description import ModelDescription

_ENDING = ("failed", "draining")
_NOT_DESCRIBED = {"n_gpu": "auto", "speculation": None, "draft_model": None, "prefix_store_bytes": None}
"""What a description does not tell, and what a launch that leaves it open says."""


def same_model(models: Iterable[ModelDescription], launch: argparse.Namespace) -> ModelDescription | None:
    """Of `models`, the one that `launch` would make again: of its uid, its name or path, and all that it asks for.

    None where there is none, or where nobody can tell.
    """
    if any(getattr(launch, option) != default for option, default in _NOT_DESCRIBED.items()):
        return None
    name = launch.model_name or PurePath(launch.model_path).stem
    uid = launch.model_uid or name
    return next((model for model in models if model.model_uid == uid and _is_asked_for(model, name, launch)), None)


def _is_asked_for(model: ModelDescription, name: str, launch: argparse.Namespace) -> bool:
    asked = {
        "model_path": launch.model_path,
        # A file that is made for vectors is launched as what it is, whatever a launch leaves open.
        "model_type": None if launch.model_type == "LLM" else launch.model_type,
        "model_engine": launch.model_engine,
        "model_format": launch.model_format,
        "model_size_in_billions": launch.model_size_in_billions,
        "quantization": launch.quantization,
        "context_length": launch.context_length,
        "replica": launch.replica,
    }
    return (
        model.state not in _ENDING
        and model.model_name == name
        and all(
            wanted is None or str(wanted).lower() == str(getattr(model, field)).lower()
            for field, wanted in asked.items()
        )
    )
