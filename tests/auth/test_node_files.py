"""Who may name which files of the nodes."""

import json
from typing import Any

import pytest

from jupyter_xinfer.auth.node_files import NodeFiles, files_of_launch, files_of_registration
from jupyter_xinfer.auth.principal import SERVER, Principal
from xinfer_runtime.catalog.custom import parse_custom_model
from xinfer_runtime.errors import InvalidRequest, PermissionDenied
from xinfer_runtime.models import LaunchRequest, LoraAdapter

STARTER = Principal(kind="api_key", name="ci", permissions=frozenset({"models:start", "models:register"}))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model_path": "/home/ann/secret.gguf"}, "model_path"),
        ({"model_path": "~/secret.gguf", "model_name": "harmless"}, "model_path"),
        ({"model_name": "/home/ann/secret.GGUF"}, "model_name"),
        ({"model_name": "xinfer-demo", "draft_model": "/home/ann/secret.gguf"}, "draft_model"),
        ({"model_name": "xinfer-demo", "draft_model": "hf://../../secret.gguf"}, "draft_model"),
        ({"model_name": "xinfer-demo", "multimodal_projector": "/home/ann/secret.gguf"}, "multimodal_projector"),
        ({"model_name": "xinfer-demo", "lora": {"a": "/home/ann/secret"}}, "lora"),
        ({"model_name": "xinfer-demo", "lora": {"a": LoraAdapter(path="/home/ann/secret.gguf")}}, "lora"),
    ],
)
def test_only_an_administrator_names_a_file(fields: dict[str, Any], field: str) -> None:
    files = files_of_launch(LaunchRequest(**fields))
    NodeFiles().require(SERVER, files)
    with pytest.raises(PermissionDenied) as caught:
        NodeFiles(["/srv/models"]).require(STARTER, files)
    assert caught.value.param == field


@pytest.mark.parametrize(
    "request_",
    [
        LaunchRequest(model_name="xinfer-demo"),
        LaunchRequest(model_name="xinfer-demo", draft_model="xinfer-demo"),
        LaunchRequest(model_path="hf://owner/model-GGUF/model.gguf"),
    ],
)
def test_names_and_hubs_are_for_everybody(request_: LaunchRequest) -> None:
    NodeFiles().require(STARTER, files_of_launch(request_))


@pytest.mark.parametrize("folder", ["/srv/models", "/srv/models/"])
def test_files_in_an_allowed_folder_are_for_everybody(folder: str) -> None:
    allowed = NodeFiles(["/data", folder])
    allowed.require(STARTER, [("model_path", "/srv/models/a/b.gguf"), ("lora", "/data/c.gguf")])


@pytest.mark.parametrize(
    "path",
    [
        "/srv/models-of-ann/b.gguf",
        "/srv/models",
        "/srv/models/../secret.gguf",
        "/srv/models/./b.gguf",
        "//srv/models/b.gguf",
        "srv/models/b.gguf",
        "",
    ],
)
def test_a_path_is_not_talked_into_an_allowed_folder(path: str) -> None:
    with pytest.raises(PermissionDenied):
        NodeFiles(["/srv/models"]).require(STARTER, [("model_path", path)])


@pytest.mark.parametrize("folder", ["srv", "~/models", "/srv/../etc", ""])
def test_a_folder_must_be_absolute(folder: str) -> None:
    with pytest.raises(InvalidRequest, match=r"XinferApp\.model_folders"):
        NodeFiles([folder])


def test_a_registration_names_files_as_a_launch_does() -> None:
    spec = {"model_format": "ggufv2", "model_size_in_billions": 1, "quantizations": ["q8_0"]}
    model = {
        "version": 2,
        "model_name": "mine",
        "model_lang": ["en"],
        "model_ability": ["chat"],
        "model_family": "mine",
        "model_specs": [
            {**spec, "model_uri": "file:///home/ann/secret.gguf"},
            {**spec, "model_size_in_billions": 2, "model_uri": "hf://owner/model-GGUF/model.gguf"},
        ],
    }
    family, _ = parse_custom_model(json.dumps(model))
    assert files_of_registration(family) == [("model_uri", "/home/ann/secret.gguf")]
