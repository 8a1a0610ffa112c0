"""Launches as Xinference's clients write them."""

import json
from contextvars import copy_context
from typing import Any

import pytest

from jupyter_xinfer.auth.principal import Principal, set_current_principal
from jupyter_xinfer.protocol.launch_body import as_sent, launch_request
from xinfer_runtime.errors import InvalidRequest, PermissionDenied
from xinfer_runtime.models import LaunchRequest

DEFAULTS: dict[str, Any] = {
    "model_uid": None,
    "model_name": "xinfer-demo",
    "model_engine": None,
    "peft_model_config": None,
    "model_type": "LLM",
    "model_size_in_billions": None,
    "model_format": None,
    "quantization": None,
    "replica": 1,
    "n_worker": 1,
    "n_gpu": "auto",
    "request_limits": None,
    "worker_ip": None,
    "gpu_idx": None,
    "replica_config": None,
    "model_path": None,
    "enable_thinking": None,
    "enable_virtual_env": None,
    "virtual_env_packages": None,
    "virtual_env_find_links": None,
    "envs": None,
}


def launch(**fields: Any) -> LaunchRequest:
    return launch_request(json.dumps({**DEFAULTS, **fields}).encode())


def test_the_payload_of_a_plain_launch_is_a_plain_launch() -> None:
    assert launch() == LaunchRequest(model_name="xinfer-demo")


def test_xinferences_list_of_adapters_is_ours() -> None:
    listed = {"lora_list": [{"lora_name": "a", "local_path": "/a.gguf"}, {"lora_name": "b", "local_path": "/b.gguf"}]}
    assert launch(peft_model_config=listed).lora == {"a": "/a.gguf", "b": "/b.gguf"}
    assert launch(peft_model_config={"lora_list": []}).lora == {}
    with pytest.raises(InvalidRequest) as caught:
        launch(peft_model_config={"lora_list": [{"lora_name": "a"}]})
    assert caught.value.param == "peft_model_config"


def test_null_means_no_gpu_and_nothing_else() -> None:
    assert launch(n_gpu=None, replica=None) == LaunchRequest(model_name="xinfer-demo", n_gpu=None)


def test_fields_that_a_form_left_empty_are_open() -> None:
    assert launch(model_uid="", model_engine="", quantization="") == launch()


def test_names_of_other_engines_options_are_understood() -> None:
    request = launch(max_model_len=512, max_num_seqs=4)

    assert (request.context_length, request.max_sequences) == (512, 4)


def test_two_names_of_one_field_must_agree() -> None:
    with pytest.raises(InvalidRequest, match="n_ctx"):
        launch(max_model_len=512, n_ctx=256)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("envs", {"A": "b"}),
        ("n_worker", True),
        ("n_worker", 2),
        ("gpu_idx", "0"),
        ("enable_virtual_env", True),
        ("enable_virtual_env", 0),
        ("temperature", 1),
        ("replica", 1.5),
        ("replica", "2"),
        ("n" * 500, 1),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        launch(**{name: value})

    assert caught.value.param == name[:100]
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("message", "paths", "told"),
    [
        ("a.gguf does not exist", ["/x/a.gguf"], "/x/a.gguf does not exist"),
        ("draft_model: a.gguf is broken", ["/y/b.gguf", "~/a.gguf"], "draft_model: ~/a.gguf is broken"),
        ("aa.gguf is not a.gguf-1 nor x/a.gguf", ["/x/a.gguf"], "aa.gguf is not a.gguf-1 nor x/a.gguf"),
        ("a.gguf and a.gguf", ["a.gguf"], "a.gguf and a.gguf"),
        ("a.gguf", ["/\\1/a.gguf"], "/\\1/a.gguf"),
        ("all is well", ["/", ""], "all is well"),
    ],
)
def test_files_are_told_as_the_caller_named_them(message: str, paths: list[str], told: str) -> None:
    assert as_sent(message, paths) == told


def launch_as(permissions: frozenset[str], **fields: Any) -> LaunchRequest:
    set_current_principal(Principal(kind="api_key", name="ci", permissions=permissions))
    return launch(**fields)


@pytest.mark.parametrize("value", [True, "true", 1, {"a": 1}])
def test_code_from_a_models_files_is_off_and_an_administrators_to_ask_for(value: Any) -> None:
    assert launch(trust_remote_code=False) == launch()
    with pytest.raises(PermissionDenied, match="administrator") as denied:
        copy_context().run(launch_as, frozenset({"models:start"}), trust_remote_code=value)
    with pytest.raises(InvalidRequest, match="no engine of it runs code") as refused:
        copy_context().run(launch_as, frozenset({"admin"}), trust_remote_code=value)

    assert denied.value.param == refused.value.param == "trust_remote_code"


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"replica":', b"\xff", b'{"replica":' + b"[" * 100_000])
def test_a_body_that_is_no_launch_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        launch_request(body)
