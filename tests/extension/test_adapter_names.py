"""A model and its adapter in one name."""

import pytest

from jupyter_xinfer.protocol.adapter_names import uid_of, with_adapter
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import GenerateRequest

REQUEST = GenerateRequest(id="r", prompt="x")


def test_a_plain_name_leaves_the_request_alone() -> None:
    assert uid_of("llama-3.1") == "llama-3.1"
    assert with_adapter("llama-3.1", REQUEST) is REQUEST


def test_what_comes_after_a_colon_names_the_adapter() -> None:
    assert uid_of("llama:pirate") == "llama"
    assert with_adapter("llama:pirate", REQUEST).lora == "pirate"
    assert with_adapter("llama:", REQUEST).lora == ""  # Which no adapter is called.


def test_two_adapters_are_one_too_many() -> None:
    chosen = GenerateRequest(id="r", prompt="x", lora="poet")
    assert with_adapter("llama:poet", chosen).lora == "poet"
    with pytest.raises(InvalidRequest) as caught:
        with_adapter("llama:pirate", chosen)
    assert caught.value.param == "lora_name"
