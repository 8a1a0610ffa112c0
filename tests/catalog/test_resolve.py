"""What a launch request means, and what is wrong with it."""

from typing import Any

import pytest

from xinfer_runtime.catalog.families import Family, FamilySpec, families
from xinfer_runtime.catalog.resolve import RESERVED_UIDS, resolve
from xinfer_runtime.errors import InvalidRequest, ModelNotFound, XinferError
from xinfer_runtime.models import LaunchRequest, LoraAdapter, ModelSpec


def launch(**fields: Any) -> ModelSpec:
    return resolve(LaunchRequest(**{"model_name": "xinfer-demo", **fields}))


def by_path(path: str, **fields: Any) -> ModelSpec:
    return launch(model_name=None, model_path=path, **fields)


def test_a_name_is_enough() -> None:
    spec = launch()
    assert (spec.uid, spec.name, spec.engine, spec.format) == ("xinfer-demo", "xinfer-demo", "llama.cpp", "ggufv2")
    assert (spec.quantization, spec.path, spec.replica, spec.n_gpu) == ("q8_0", "", 1, None)


def test_every_family_can_be_resolved_in_every_quantization() -> None:
    for family in families():
        for each in family.specs:
            for label in each.quantizations:
                spec = launch(
                    model_name=family.name,
                    model_format=each.format,
                    model_size_in_billions=each.size_in_billions,
                    quantization=label,
                )
                assert (spec.format, spec.quantization) == (each.format, label)


def test_a_path_is_enough_and_its_stem_is_name_and_uid() -> None:
    spec = by_path("/models/My model (1)-Q4_K_M.gguf")
    assert spec.name == "My model (1)-Q4_K_M"
    assert spec.uid == "My-model-1--Q4_K_M"
    assert spec.path == "/models/My model (1)-Q4_K_M.gguf"


def test_a_name_that_is_a_gguf_file_is_a_path() -> None:
    spec = launch(model_name="/models/tiny.gguf")
    assert (spec.path, spec.uid) == ("/models/tiny.gguf", "tiny")


def test_a_path_may_have_a_name_and_a_uid_of_its_own() -> None:
    spec = launch(model_name="mine", model_path="/m/x.gguf", model_uid="other")
    assert (spec.name, spec.uid, spec.path) == ("mine", "other", "/m/x.gguf")


def test_names_quantizations_and_engines_are_matched_without_case() -> None:
    spec = launch(model_name="Xinfer-Demo", model_engine="LLAMA_CPP", quantization="Q8_0", model_format="GGUFv2")
    assert (spec.name, spec.engine, spec.quantization, spec.format) == ("xinfer-demo", "llama.cpp", "q8_0", "ggufv2")


@pytest.mark.parametrize(("given", "spec"), [("auto", None), (None, 0), (0, 0), (2, 2)])
def test_gpus(given: Any, spec: int | None) -> None:
    assert launch(n_gpu=given).n_gpu == spec


@pytest.mark.parametrize("size", [0.004, "0.004", "0_004"])
def test_sizes_are_written_in_several_ways(size: Any) -> None:
    assert launch(model_size_in_billions=size).size_in_billions == "0_004"


def test_what_a_launch_says_of_its_own_is_kept() -> None:
    spec = launch(replica=3, context_length=256, max_sequences=8)
    assert (spec.replica, spec.context_length, spec.max_sequences) == (3, 256, 8)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match="xinfer-demo") as caught:
        launch(model_name="xinfer_dmo")
    assert caught.value.param == "model_name"


@pytest.mark.parametrize(
    ("param", "fields", "said"),
    [
        ("model_name", {"model_name": None}, "model_path is needed"),
        ("model_name", {"model_name": "x" * 201}, "201 characters"),
        ("model_type", {"model_type": "image"}, "LLM"),
        ("model_engine", {"model_engine": "vroom"}, r"llama\.cpp"),
        ("model_format", {"model_format": "pytorch"}, "ggufv2"),
        ("model_format", {"model_path": "/m/x.gguf", "model_format": "pytorch"}, "ggufv2"),
        ("model_size_in_billions", {"model_size_in_billions": 70}, "0_004"),
        ("quantization", {"quantization": "q2_k"}, "q8_0"),
        ("model_path", {"model_path": "/m/x.safetensors"}, r"\.gguf"),
        ("model_path", {"model_path": "/m/\0.gguf"}, "path"),
        ("replica", {"replica": 0}, "from 1 to"),
        ("replica", {"replica": 10**6}, "from 1 to"),
        ("replica", {"replica": True}, "whole number"),
        ("n_gpu", {"n_gpu": -1}, "from 0 to"),
        ("n_gpu", {"n_gpu": "all"}, "auto"),
        ("context_length", {"context_length": 0}, "from 1 to"),
        ("max_sequences", {"max_sequences": 257}, "from 1 to"),
        ("model_uid", {"model_uid": ""}, "1 to 100"),
        ("model_uid", {"model_uid": "a/b"}, "letters"),
        ("model_uid", {"model_uid": "a\n"}, "letters"),
        ("model_uid", {"model_uid": "模型"}, "letters"),
        ("model_uid", {"model_uid": "x" * 101}, "1 to 100"),
        ("model_uid", {"model_uid": "demo-rep0"}, "replica"),
        ("model_uid", {"model_uid": ".."}, "paths"),
        *(("model_uid", {"model_uid": uid}, "paths") for uid in sorted(RESERVED_UIDS)),
    ],
)
def test_what_cannot_be_is_refused_by_field(param: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        launch(**fields)
    assert caught.value.param == param


def test_a_file_whose_name_makes_no_uid_needs_one() -> None:
    with pytest.raises(XinferError) as caught:
        by_path("/m/模型.gguf")
    assert caught.value.param == "model_uid"
    assert by_path("/m/模型.gguf", model_uid="model").uid == "model"


def test_how_keys_and_values_are_stored_is_an_option_of_the_engine() -> None:
    request = LaunchRequest(model_name="xinfer-demo", cache_type_k="q8_0", flash_attention="on")
    assert resolve(request).engine_options == {"cache_type_k": "q8_0", "flash_attention": "on"}


def test_a_draft_model_is_named_by_path_or_as_it_is_registered() -> None:
    mine = Family(
        name="mine",
        family="mine",
        description="",
        abilities=("chat",),
        languages=("en",),
        context_length=512,
        specs=(FamilySpec(format="ggufv2", size_in_billions="1", quantizations={"q4": "/m/4.gguf"}),),
        builtin=False,
    )
    for wanted, found in (("/d/small.gguf", "/d/small.gguf"), ("Mine", "/m/4.gguf"), ("XINFER-demo", "xinfer-demo")):
        options = resolve(LaunchRequest(model_path="/m/large.gguf", draft_model=wanted), [mine]).engine_options
        assert options == {"speculation": "draft-model", "draft_model": found}


@pytest.mark.parametrize(
    "fields",
    [
        {"speculation": "draft-model"},
        {"speculation": "off", "draft_model": "/d.gguf"},
        {"draft_model": "unknown"},
        {"draft_model": "a\0.gguf"},
    ],
)
def test_a_draft_model_that_cannot_be_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(XinferError) as caught:
        resolve(LaunchRequest(model_path="/m/large.gguf", **fields))
    assert caught.value.param == "draft_model"


def test_adapters_are_an_option_of_the_engine_by_path_or_with_a_scale() -> None:
    request = LaunchRequest(
        model_name="xinfer-demo", lora={"a": "/a.gguf", "b": LoraAdapter(path="/b.gguf", scale=0.5)}
    )
    assert resolve(request).engine_options == {
        "lora": {"a": {"path": "/a.gguf"}, "b": {"path": "/b.gguf", "scale": 0.5}}
    }
    with pytest.raises(InvalidRequest) as caught:
        resolve(LaunchRequest(model_name="xinfer-demo", lora={"a:b": "/a.gguf"}))
    assert caught.value.param == "lora"


def test_the_prefix_cache_is_an_option_of_the_engine() -> None:
    assert resolve(LaunchRequest(model_name="xinfer-demo", prefix_cache=False)).engine_options == {
        "prefix_cache": False
    }
    assert resolve(LaunchRequest(model_name="xinfer-demo", prefix_store_bytes=9)).engine_options == {
        "prefix_store_bytes": 9
    }
    assert resolve(LaunchRequest(model_name="xinfer-demo")).engine_options == {}
