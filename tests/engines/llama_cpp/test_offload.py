"""Which layers go on which GPUs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.engines.llama_cpp import devices, loading, native_log
from xinfer_runtime.engines.llama_cpp.offload import ALL_LAYERS, Gpu, Offload, layer_costs, layers_that_fit, plan
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.weights import load_weights
from xinfer_runtime.errors import InvalidRequest, ModelFileError
from xinfer_runtime.models import ModelSpec

GIB = 1 << 30
COSTS = [GIB] * 10 + [2 * GIB]
"""Ten layers and the output."""


def gpus(*free: float) -> list[Gpu]:
    return [Gpu(7 + n, f"GPU {n}", int(each * GIB), 80 * GIB) for n, each in enumerate(free)]


def chosen(*free: float, wanted: int | None = None, **options: Any) -> Offload:
    return plan(gpus(*free), wanted, Options(**options), COSTS, overhead=GIB // 2)


def test_all_layers_go_where_they_fit() -> None:
    assert chosen(20) == Offload(ALL_LAYERS, (7,))


def test_the_last_layers_go_where_not_all_fit() -> None:
    # 0.75 GiB stay free: the output of 2 GiB and four layers of one.
    assert chosen(6.8).layers == 5
    assert chosen(2.6).layers == 0
    assert not chosen(0.1).on_gpu


def test_a_launch_can_say_how_many() -> None:
    assert chosen(6.8, n_gpu_layers=3).layers == 3
    assert chosen(6.8, n_gpu_layers=11).layers == ALL_LAYERS
    assert chosen(6.8, n_gpu_layers=-1).layers == ALL_LAYERS
    assert chosen(6.8, n_gpu_layers=0) == Offload()


def test_a_launch_without_gpus_gets_none() -> None:
    assert chosen(20, wanted=0) == Offload()
    assert chosen() == Offload()


def test_so_many_gpus_are_used_as_the_launch_asks_for() -> None:
    assert chosen(20, 20, wanted=1).devices == (7,)
    assert chosen(20, 20).devices == (7, 8)


def test_two_gpus_hold_what_one_cannot() -> None:
    assert chosen(8).layers < 11
    assert chosen(8, 8).layers == ALL_LAYERS


def test_without_splitting_one_gpu_has_it_all() -> None:
    offload = chosen(8, 20, split_mode="none", main_gpu=1)
    assert (offload.layers, offload.devices, offload.main_gpu) == (ALL_LAYERS, (8,), 0)


def test_the_parts_of_the_launch_count() -> None:
    assert layers_that_fit(COSTS, [20 * GIB, 20 * GIB], split=[1, 0]) == 11
    assert layers_that_fit(COSTS, [6 * GIB, 20 * GIB]) == 11
    # All on the first one, which is small.
    assert layers_that_fit(COSTS, [6 * GIB, 20 * GIB], split=[1.0]) == 5


@pytest.mark.parametrize(
    ("wanted", "options", "param"),
    [
        (3, {}, "n_gpu"),
        (0, {"n_gpu_layers": 5}, "n_gpu_layers"),
        (None, {"main_gpu": 2}, "main_gpu"),
        (1, {"main_gpu": 1}, "main_gpu"),
        (None, {"tensor_split": (1.0, 1.0, 1.0)}, "tensor_split"),
    ],
)
def test_what_the_gpus_cannot_do_is_refused(wanted: int | None, options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chosen(20, 20, wanted=wanted, **options)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n_gpu_layers": -2}, "n_gpu_layers"),
        ({"main_gpu": -1}, "main_gpu"),
        ({"tensor_split": [1.0, -1.0]}, "tensor_split"),
        ({"tensor_split": [0.0]}, "tensor_split"),
        ({"split_mode": "both"}, "engine_options"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Options.of(ModelSpec(uid="m", name="m", engine_options=options))
    assert caught.value.param == param


@given(
    costs=st.lists(st.integers(1, 100), min_size=1, max_size=30),
    free=st.lists(st.integers(-10, 800), min_size=1, max_size=4),
)
def test_what_is_chosen_is_no_more_than_there_is(costs: list[int], free: list[int]) -> None:
    count = layers_that_fit(costs, free)
    assert 0 <= count <= len(costs)
    assert sum(costs[len(costs) - count :]) <= sum(each for each in free if each > 0)


def test_a_model_costs_what_its_tensors_take_and_the_cache(tiny_model: Path) -> None:
    file = read_gguf(tiny_model)
    costs = layer_costs(file, cache_bytes=2000)
    embedding = next(each for each in file.tensors if each.name == "token_embd.weight")
    assert len(costs) == 3
    assert costs[0] == costs[1]
    assert sum(costs) == 2000 + sum(each.bytes or 0 for each in file.tensors) - (embedding.bytes or 0)


def test_layers_on_a_gpu_need_a_build_that_has_gpus(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "supports_gpu", lambda: False)
    spec = ModelSpec(uid="m", name="m", path=str(tiny_model))
    with pytest.raises(InvalidRequest, match="no GPU support") as caught:
        loading.load_model(spec, Options(n_gpu_layers=2), lambda fraction, stage: True)
    assert caught.value.param == "n_gpu_layers"


def test_llama_cpp_uses_the_devices_that_it_is_given(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The processor stands in for a GPU: it is one of llama.cpp's devices, with memory and a handle as those have.
    monkeypatch.setattr(devices, "_GPU", 0)
    monkeypatch.setattr(devices, "supports_gpu", lambda: True)
    [found] = devices.gpus()
    assert 0 < found.free <= found.total
    everything = Offload(ALL_LAYERS, (found.index,), tensor_split=(1.0,))
    load_weights(tiny_model, everything, lambda _: True).free()
    assert any("using device CPU" in line for line in native_log.lines())
    with pytest.raises(ModelFileError, match="split buffers"):  # Only GPUs divide rows.
        load_weights(tiny_model, replace(everything, split_mode="row"), lambda _: True)


async def test_the_replica_says_how_many_layers_are_on_gpus(engines: Callable[[], Any], tiny_model: Path) -> None:
    assert (await engines().load(tiny_model, n_gpu=0)).gpu_layers == 0
