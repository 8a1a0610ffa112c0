"""Engines by name."""

import sys

import pytest

from xinfer_runtime.engines.base import Engine
from xinfer_runtime.engines.registry import create_engine
from xinfer_runtime.errors import EngineError, InvalidRequest


@pytest.mark.parametrize("name", ["llama.cpp", "llama_cpp", "LLAMA-CPP", "Llama.cpp"])
def test_every_way_to_write_llama_cpp_makes_the_engine(name: str) -> None:
    assert isinstance(create_engine(name), Engine)


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"llama\.cpp") as caught:
        create_engine("vroom")
    assert caught.value.param == "model_engine"


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(EngineError, match=r"pip install .*llama-cpp"):
        create_engine("llama.cpp")
