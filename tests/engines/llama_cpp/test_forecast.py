"""The forecast from the header against what llama.cpp allocates, and what a replica's process takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.engine.random_model import SHAPES, write
from bench.engine.replica_memory import measure

from xinfer_runtime.catalog.forecast import forecast
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.models import LaunchRequest, ModelSpec

RunningEngine = Any

NEAR = 0.05


@pytest.fixture
def exact_attention() -> None:
    """Not here: what is measured is the cache and the attention as they are used."""


@pytest.fixture(scope="module")
def demo() -> Path:
    return Path(inspect(resolve(LaunchRequest(model_name="xinfer-demo"))).path)


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """125 M parameters, of a type that llama.cpp rearranges."""
    path = tmp_path_factory.mktemp("models") / "125m-q4_0.gguf"
    write(path, SHAPES["125m"], quantization="q4_0")
    return path


async def check(running: RunningEngine, path: Path, options: dict[str, Any], **fields: Any) -> None:
    options = {**options, "threads": 1}
    info = await running.load(path, engine_options=options, n_gpu=0, **fields)
    spec = ModelSpec(uid="m", name="m", n_gpu=0, engine_options=options, **fields)
    expected = forecast(read_gguf(path), spec)
    assert expected.total - expected.process == pytest.approx(info.memory_bytes, rel=NEAR, abs=1 << 19)


@pytest.mark.parametrize("max_sequences", [None, 1, 8, 64])
@pytest.mark.parametrize(
    "options",
    [{}, {"cache_type_k": "q8_0", "cache_type_v": "q4_0"}, {"flash_attention": "off", "cache_type_k": "q4_0"}],
)
async def test_the_forecast_is_near_what_is_allocated_for_the_demo_model(
    engines: Callable[[], RunningEngine], demo: Path, max_sequences: int | None, options: dict[str, Any]
) -> None:
    await check(engines(), demo, options, max_sequences=max_sequences)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"token_budget": 512}, {"max_sequences": 64, "context_length": 256}),
        ({"kv_cells": 3072, "prefix_cache": False}, {"max_sequences": 16}),
        ({"cache_type_k": "q4_0", "cache_type_v": "q4_0"}, {"max_sequences": 2, "context_length": 2048}),
    ],
)
async def test_the_forecast_is_near_what_is_allocated_for_125_million_parameters(
    engines: Callable[[], RunningEngine], medium: Path, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    await check(engines(), medium, options, **fields)


@pytest.mark.parametrize("model", ["demo", "medium"])
async def test_the_forecast_is_near_what_the_process_takes(model: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(model)
    spec = inspect(ModelSpec(uid="m", name="m", path=str(path), n_gpu=0, max_sequences=4, context_length=1024))
    measured = await measure(spec, idle_seconds=5)
    assert measured.forecast.total == pytest.approx(measured.resident, rel=NEAR)
    assert spec.memory_bytes == measured.forecast.total
    assert measured.idle < 0.05  # 0.002 on a quiet machine.


async def test_the_forecast_is_near_what_a_process_with_a_full_store_takes(demo: Path) -> None:
    options = {"prefix_store_bytes": 40 << 20}
    spec = ModelSpec(
        uid="m", name="m", path=str(demo), n_gpu=0, max_sequences=4, context_length=1024, engine_options=options
    )
    measured = await measure(inspect(spec), idle_seconds=0.1)
    assert measured.forecast.total == pytest.approx(measured.resident, rel=NEAR)


def test_quantized_values_without_flash_attention_are_refused_at_launch(demo: Path) -> None:
    options = {"cache_type_v": "q8_0", "flash_attention": "off"}
    with pytest.raises(InvalidRequest, match="needs flash attention") as caught:
        inspect(ModelSpec(uid="m", name="m", path=str(demo), engine_options=options))
    assert caught.value.param == "cache_type_v"


def test_heads_that_cannot_be_quantized_are_refused_at_launch(tiny_model: Path) -> None:
    with pytest.raises(InvalidRequest, match="the heads of this model have 16") as caught:
        inspect(ModelSpec(uid="m", name="m", path=str(tiny_model), engine_options={"cache_type_k": "q8_0"}))
    assert caught.value.param == "cache_type_k"
