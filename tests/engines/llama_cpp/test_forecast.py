"""The forecast from the header against what llama.cpp allocates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xinfer_runtime.catalog.forecast import forecast
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.messages import LaunchRequest

RunningEngine = Any


@pytest.fixture
def exact_attention() -> None:
    """Not here: what is measured is the cache and the attention as they are used."""


@pytest.mark.parametrize("max_sequences", [None, 1, 64])
async def test_the_forecast_is_near_what_is_allocated(
    engines: Callable[[], RunningEngine], tiny_model: Path, max_sequences: int | None
) -> None:
    for path in (tiny_model, Path(inspect(resolve(LaunchRequest(model_name="xinfer-demo"))).path)):
        info = await engines().load(path, max_sequences=max_sequences, n_gpu=0)
        expected = forecast(read_gguf(path), max_sequences=max_sequences, n_gpu=0)
        allocated = expected.total - expected.process
        assert info.memory_bytes <= allocated * 1.05 + (1 << 20)
        assert allocated <= info.memory_bytes * 1.3 + (2 << 20)
