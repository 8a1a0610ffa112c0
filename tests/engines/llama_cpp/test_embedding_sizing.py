"""What an embedding model computes at once, and the memory that it takes, against what llama.cpp allocates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from bench.embedding import random_encoder
from bench.engine.replica_memory import measure

from xinfer_runtime.catalog.embedding_forecast import forecast_embedding
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.engines.llama_cpp.embedding_sizing import choose
from xinfer_runtime.models import ModelSpec

Engines = Callable[..., Any]


@pytest.fixture
def exact_attention() -> None:
    """Not here: what is measured is the attention as it is used."""


def test_an_input_may_be_as_long_as_the_model_was_trained_for() -> None:
    size = choose(2048, 30522, divisible=False, on_gpu=False)
    assert (size.context_length, size.token_budget, size.batch_tokens, size.pass_tokens) == (2048, 256, 2048, 2048)


def test_a_large_vocabulary_bounds_it_unless_the_launch_says_otherwise() -> None:
    assert choose(8192, 250_002, divisible=False, on_gpu=False).context_length == 2048
    assert choose(8192, 250_002, divisible=False, on_gpu=False, context_length=8192).context_length == 8192
    assert choose(0, 0, divisible=True, on_gpu=True).context_length == 8192


def test_only_what_looks_back_alone_is_divided() -> None:
    assert choose(4096, 1000, divisible=True, on_gpu=False).pass_tokens == 256
    assert choose(4096, 1000, divisible=False, on_gpu=False).pass_tokens == 4096


async def check(running: Any, spec: ModelSpec) -> None:
    options = {**spec.engine_options, "threads": 1}
    fields = {"context_length": spec.context_length, "max_sequences": spec.max_sequences}
    info = await running.load(Path(spec.path), engine_options=options, n_gpu=0, **fields)
    expected = forecast_embedding(read_gguf(Path(spec.path)), spec)
    assert expected.total - expected.process == pytest.approx(info.memory_bytes, rel=0.05, abs=1 << 19)
    assert inspect(spec).memory_bytes == expected.total


@pytest.mark.parametrize("flash", ["auto", "off"])
@pytest.mark.parametrize(("context", "sequences"), [(None, None), (2048, 8)])
async def test_the_forecast_of_an_encoder_is_near_what_is_allocated(
    engines: Engines, tmp_path: Path, flash: str, context: int | None, sequences: int | None
) -> None:
    path = random_encoder.write(tmp_path / "e.gguf", width=384, inner=1536, context=2048, heads=12)
    spec = ModelSpec(
        uid="m",
        name="m",
        type="embedding",
        path=str(path),
        n_gpu=0,
        context_length=context,
        max_sequences=sequences,
        engine_options={"flash_attention": flash},
    )
    await check(engines("embedding"), spec)


@pytest.mark.parametrize("pooling", [gguf.PoolingType.LAST, gguf.PoolingType.MEAN])
async def test_the_forecast_of_a_decoder_is_near_what_is_allocated(
    engines: Engines, make_model: Callable[..., Path], pooling: gguf.PoolingType
) -> None:
    path = make_model(pooling=pooling, context_length=4096)
    spec = ModelSpec(uid="m", name="m", type="embedding", path=str(path), n_gpu=0)
    await check(engines("embedding"), spec)


async def test_the_forecast_is_near_what_the_process_takes(tmp_path: Path) -> None:
    path = random_encoder.write(tmp_path / "e.gguf", width=384, inner=1536, context=1024, heads=12, layers=4)
    spec = inspect(ModelSpec(uid="m", name="m", path=str(path), n_gpu=0))
    measured = await measure(spec, idle_seconds=0.1)
    assert measured.forecast.total == pytest.approx(measured.resident, rel=0.05)
