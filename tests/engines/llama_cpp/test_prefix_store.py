"""What has to leave the KV cache comes back from host memory, and nobody can tell from the text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xinfer_runtime.catalog.forecast import forecast
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.engines.llama_cpp.cell_operations import Save
from xinfer_runtime.engines.llama_cpp.prefix_cache import PrefixCache
from xinfer_runtime.engines.llama_cpp.prefix_store import PrefixStore, SavedPrefix
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

RunningEngine = Any
STORE = {"prefix_store_bytes": 8 << 20}


def saved(*tokens: int, adapter: str = "", size: int = 100) -> SavedPrefix:
    return SavedPrefix(adapter, np.array(tokens, dtype=np.int32), np.zeros(size - 4 * len(tokens), dtype=np.uint8))


def test_the_prefix_with_most_in_common_is_found() -> None:
    store = PrefixStore(1000)
    store.put(saved(1, 2, 3))
    store.put(saved(1, 2, 4, 5))
    found = store.longest("", [1, 2, 4, 6])
    assert found is not None
    assert (found[0].tokens.tolist(), found[1]) == ([1, 2, 4, 5], 3)
    assert store.longest("", [2]) is None
    assert store.longest("adapter", [1, 2, 4, 6]) is None


def test_a_prefix_replaces_those_it_begins_with_of_the_same_adapter() -> None:
    store = PrefixStore(1000)
    store.put(saved(1, 2))
    store.put(saved(1, 2, adapter="other"))
    store.put(saved(1, 2, 3))
    assert len(store) == 2
    assert store.covers("", [1, 2])
    assert store.covers("other", [1, 2])
    assert not store.covers("other", [1, 2, 3])


def test_the_least_recently_used_prefix_makes_room() -> None:
    store = PrefixStore(250)
    store.put(saved(1))
    store.put(saved(2))
    assert store.longest("", [1]) is not None
    store.put(saved(3))
    assert store.bytes == 200
    assert [store.covers("", [token]) for token in (1, 2, 3)] == [True, False, True]
    store.put(saved(4, size=251))
    assert not store.covers("", [4])
    store.clear()
    assert (store.bytes, len(store)) == (0, 0)


def test_an_evicted_prefix_is_offered_once_while_it_is_whole() -> None:
    cache = PrefixCache(2, 100, worth_saving=4)
    slot, node = cache.enter(cache.match([1, 2, 3, 4, 5], 4)) or pytest.fail("no sequence")
    cache.leave(slot, node, [1, 2, 3, 4, 5])
    cache.operations()
    assert cache.evict(1) == 1
    assert cache.operations()[0] == Save(slot, "", [1, 2, 3, 4, 5])
    assert cache.evict(4) == 4
    assert not any(isinstance(each, Save) for each in cache.operations())


def test_what_failed_and_what_is_short_is_not_offered() -> None:
    cache = PrefixCache(2, 100, worth_saving=4)
    slot, node = cache.enter(cache.match([1, 2, 3], 2)) or pytest.fail("no sequence")
    cache.leave(slot, node, [1, 2, 3])
    slot, node = cache.enter(cache.match([5, 6, 7, 8, 9], 4)) or pytest.fail("no sequence")
    node = cache.commit(slot, node, [5, 6, 7, 8, 9])
    cache.discard(slot, node)
    cache.evict(10)
    assert not any(isinstance(each, Save) for each in cache.operations())


async def pair(make: Callable[[], RunningEngine], path: Path, **options: Any) -> tuple[RunningEngine, RunningEngine]:
    """An engine with a store, and one that computes everything."""
    storing, plain = make(), make()
    await storing.load(path, max_sequences=4, engine_options={"kv_cells": 512, **STORE, **options})
    await plain.load(path, max_sequences=4, engine_options={"kv_cells": 512, "prefix_cache": False})
    return storing, plain


@pytest.mark.parametrize(
    ("sampling", "rounded"),
    # Cells lie elsewhere than without a store, and are added up in another order: of 1,200 draws one can fall on the
    # other side of its boundary. What came back wrong would turn them all.
    [({"temperature": 0}, 0), ({"temperature": 1, "seed": 7}, 2)],
    ids=["greedy", "seeded"],
)
async def test_an_evicted_prompt_comes_back_and_goes_on_the_same(
    engines: Callable[[], RunningEngine], tiny_model: Path, sampling: dict[str, Any], rounded: int
) -> None:
    storing, plain = await pair(engines, tiny_model)
    prompts = {name: f"{name} " * 40 for name in ("one", "two", "six", "ten")}
    others: list[str] = []
    for turn in range(3):
        for name, prompt in prompts.items():
            request = GenerateRequest(
                id=f"{name} {turn}",
                prompt=prompt + f"turn {turn}",
                sampling=SamplingParams(max_tokens=100, ignore_eos=True, **sampling),
            )
            await storing.run(request)
            await plain.run(request)
            if storing.tokens(request.id) != plain.tokens(request.id):
                others.append(request.id)
    assert len(others) <= rounded, others
    stats = storing.engine.stats()
    assert stats.restored_tokens >= 160
    usage = storing.deltas["one 2"][-1].usage
    assert usage.cached_tokens >= 160
    assert storing.engine._loop._saving.store.bytes <= STORE["prefix_store_bytes"]


async def test_without_a_store_nothing_comes_back(engines: Callable[[], RunningEngine], tiny_model: Path) -> None:
    storing, _ = await pair(engines, tiny_model, prefix_store_bytes=0)
    for name in ("one", "two", "six", "ten", "one"):
        await storing.greedy(name, f"{name} " * 40, 100)
    assert storing.engine.stats().restored_tokens == 0


async def test_a_refused_restoration_costs_only_time(
    engines: Callable[[], RunningEngine], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, plain = await pair(engines, tiny_model)
    monkeypatch.setattr("llama_cpp.llama_state_seq_set_data", lambda *_: 0)
    for n, name in enumerate(("one", "two", "six", "ten", "one", "two")):
        assert await storing.greedy(f"r{n}", f"{name} " * 40, 100) == await plain.greedy(f"r{n}", f"{name} " * 40, 100)
    assert storing.engine.stats().restored_tokens == 0


def test_the_forecast_counts_the_store(tiny_model: Path) -> None:
    file = read_gguf(tiny_model)
    without = forecast(file, ModelSpec(uid="m", name="m", engine_options={"kv_cells": 512}))
    with_it = forecast(file, ModelSpec(uid="m", name="m", engine_options={"kv_cells": 512, **STORE}))
    assert with_it.total - without.total == STORE["prefix_store_bytes"]


@pytest.mark.parametrize("options", [{"prefix_store_bytes": -1}, {**STORE, "prefix_cache": False}])
async def test_a_store_that_cannot_be_is_refused(
    engines: Callable[[], RunningEngine], tiny_model: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="prefix_store_bytes"):
        await engines().load(tiny_model, engine_options=options)
