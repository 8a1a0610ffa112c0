"""Keys and values in fewer bits, and attention computed either way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.catalog.resolve import resolve
from xinfer_runtime.models import LaunchRequest

RunningEngine = Any


@pytest.fixture
def exact_attention() -> None:
    """Not here: what is tested is the cache as it is used."""


@pytest.mark.parametrize(
    "options",
    [
        {"cache_type_k": "q8_0", "cache_type_v": "q8_0"},
        {"cache_type_k": "q4_0"},
        {"cache_type_k": "q4_0", "cache_type_v": "q4_0", "flash_attention": "on"},
        {"flash_attention": "off"},
    ],
)
@pytest.mark.parametrize("max_sequences", [1, 4])
async def test_the_demo_model_answers_with_any_cache(
    engines: Callable[[], RunningEngine], options: dict[str, Any], max_sequences: int
) -> None:
    demo = Path(inspect(resolve(LaunchRequest(model_name="xinfer-demo"))).path)
    answers = []
    for each in ({}, options):
        running = engines()
        await running.load(demo, engine_options=each, max_sequences=max_sequences)
        answers.append(await running.greedy("r", "Once upon a time there was a little", tokens=12))
    assert answers[0][:12] == answers[1][:12]  # Fewer bits, other texts; not from the beginning.
    assert answers[1].strip()
