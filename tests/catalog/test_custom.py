"""Definitions of custom models, well meant and hostile."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.catalog.custom import MAX_BYTES, parse_custom_model
from xinfer_runtime.catalog.families import Family
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.errors import Conflict, XinferError
from xinfer_runtime.models import LaunchRequest

SPEC = {
    "model_format": "ggufv2",
    "model_size_in_billions": 7,
    "quantization": "Q4_K_M",
    "model_uri": "file:///m/a.gguf",
}


def parse(*specs: dict[str, Any], **fields: Any) -> Family:
    definition = {"version": 2, "model_name": "mine", "model_specs": list(specs) or [SPEC], **fields}
    return parse_custom_model(json.dumps(definition))[0]


def test_version_2_has_a_spec_per_quantization() -> None:
    family = parse(SPEC, {**SPEC, "quantization": "Q8_0", "model_uri": "/m/b.gguf"})

    [spec] = family.specs
    assert (spec.size_in_billions, spec.quantizations) == ("7", {"Q4_K_M": "/m/a.gguf", "Q8_0": "/m/b.gguf"})
    assert not family.builtin


def test_version_1_lists_quantizations_with_a_template_of_their_files() -> None:
    spec = {
        "model_format": "ggufv2",
        "model_size_in_billions": "1_5",
        "quantizations": ["q4_0", "q8_0"],
        "model_uri": "file:///m",
        "model_file_name_template": "m-{quantization}.gguf",
    }
    family = parse_custom_model(json.dumps({"model_name": "old", "model_specs": [spec]}))[0]

    [parsed] = family.specs
    assert parsed.quantizations == {"q4_0": "/m/m-q4_0.gguf", "q8_0": "/m/m-q8_0.gguf"}


def test_a_launch_by_name_gets_the_registered_path() -> None:
    family = parse(SPEC, {**SPEC, "quantization": "Q8_0", "model_uri": "/m/b.gguf"})

    spec = resolve(LaunchRequest(model_name="MINE", quantization="q8_0", model_size_in_billions=7.0), [family])

    assert (spec.uid, spec.name, spec.path, spec.quantization) == ("mine", "mine", "/m/b.gguf", "Q8_0")


HUB = {"model_format": "ggufv2", "model_size_in_billions": 7, "quantizations": ["Q8_0"]}
NAMED = {**HUB, "model_file_name_template": "m-{quantization}.gguf"}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({**HUB, "model_uri": "hf://me/m/m-{quantization}.gguf"}, "hf://me/m/m-Q8_0.gguf"),
        ({**NAMED, "model_uri": "hf://me/m"}, "hf://me/m/m-Q8_0.gguf"),
        ({**NAMED, "model_id": "me/m", "model_hub": "modelscope"}, "modelscope://me/m/m-Q8_0.gguf"),
        (
            {**NAMED, "model_id": "me/m", "model_hub": "huggingface", "model_revision": "v1"},
            "huggingface://me/m@v1/m-Q8_0.gguf",
        ),
        ({**NAMED, "model_id": "me/m"}, "hub://me/m/m-Q8_0.gguf"),
    ],
)
def test_files_may_be_on_a_hub(spec: dict[str, Any], path: str) -> None:
    assert parse(spec).specs[0].quantizations == {"Q8_0": path}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({**NAMED, "model_id": "../etc"}, "model_id"),
        ({**NAMED, "model_id": "me/m", "model_hub": "floppy"}, "model_hub"),
        ({**HUB, "model_id": "me/m"}, "model_file_name_template"),
        ({**HUB, "model_uri": "hf://me/../m.gguf"}, "model_uri"),
    ],
)
def test_what_is_no_file_of_a_hub_is_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(XinferError, match=said):
        parse(spec)


def test_without_a_quantization_the_file_says_it() -> None:
    family = parse({**SPEC, "quantization": None})

    assert resolve(LaunchRequest(model_name="mine", quantization="none"), [family]).quantization is None


def test_names_in_any_script_are_allowed() -> None:
    assert parse(model_name="通义千问-7b").name == "通义千问-7b"


def test_the_name_of_a_packaged_model_is_taken() -> None:
    with pytest.raises(Conflict, match="packaged"):
        parse(model_name="Xinfer-Demo")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a\\b", "a b", "a\n", "a\0b", "a%2fb", "a?b", "a#b", "x" * 101, None, 7]
)
def test_a_name_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(XinferError, match="model_name") as caught:
        parse(model_name=name)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_uri", None),
        ("model_uri", "s3://bucket/m.gguf"),
        ("model_uri", "https://example.org/m.gguf"),
        ("model_uri", "file://host/m.gguf"),
        ("model_uri", "file:///m/../../etc/passwd.gguf"),
        ("model_uri", "file:///m/%2e%2e/x.gguf"),
        ("model_uri", "relative/m.gguf"),
        ("model_uri", "file:///m/a%00.gguf"),
        ("model_uri", "/m/a.safetensors"),
        ("model_uri", "file://[m.gguf"),
        ("model_uri", "/" + "m" * 5000 + ".gguf"),
        ("model_format", "pytorch"),
        ("model_size_in_billions", "huge"),
        ("model_size_in_billions", float("1e300")),
        ("quantization", "../x"),
    ],
)
def test_a_spec_that_cannot_be_launched_is_refused(field: str, value: Any) -> None:
    with pytest.raises(XinferError) as caught:
        parse({**SPEC, field: value})
    assert caught.value.status == 400


def test_a_template_does_not_leave_its_folder() -> None:
    with pytest.raises(XinferError, match="model_file_name_template"):
        parse({**SPEC, "model_uri": "/m", "model_file_name_template": "../{quantization}.gguf"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '"x"',
        "{" * 100_000,
        "[" * 100_000,
        json.dumps({"x": "y" * MAX_BYTES}),
        '{"model_name": "\\ud800"}',
    ],
)
def test_a_text_that_is_no_definition_is_refused(text: str) -> None:
    with pytest.raises(XinferError) as caught:
        parse_custom_model(text)
    assert caught.value.status == 400


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_is_accepted_has_a_sound_name_and_an_absolute_path(name: str, uri: str) -> None:
    try:
        family = parse({**SPEC, "model_uri": uri}, model_name=name)
    except XinferError:
        return
    assert not set(family.name) & set("/\\%?# \0")
    [path] = family.specs[0].quantizations.values()
    assert path.startswith("/")
    assert ".." not in path.split("/")


@pytest.mark.parametrize(("model_type", "ability"), [("embedding", "embed"), ("rerank", "rerank")])
def test_models_that_generate_nothing_need_no_size(model_type: str, ability: str) -> None:
    spec = {"model_format": "ggufv2", "quantization": "Q8_0", "model_uri": "/m/e.gguf"}
    family = parse(spec, model_type=model_type, dimensions=384, max_tokens=256, language=["en"])

    assert (family.type, family.abilities, family.languages) == (model_type, (ability,), ("en",))
    assert family.context_length == 256
    launched = resolve(LaunchRequest(model_name="mine"), [family])
    assert (launched.type, launched.path, launched.size_in_billions) == (model_type, "/m/e.gguf", "")


@pytest.mark.parametrize(
    ("fields", "param"), [({}, "model_specs[0].model_size_in_billions"), ({"model_type": "audio"}, "model_type")]
)
def test_a_type_and_the_size_of_a_model_that_generates_are_asked_for(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(XinferError) as caught:
        parse({"model_format": "ggufv2", "model_uri": "/m/e.gguf"}, **fields)
    assert caught.value.param == param
