"""LoRA adapters: chosen per request, one pass for each, nothing shared between them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.engines.conftest import write_model
from tests.engines.lora_files import write_adapter

from xinfer_runtime.catalog.inspect import inspect
from xinfer_runtime.engines.llama_cpp.adapters import by_adapter
from xinfer_runtime.errors import ModelFileError
from xinfer_runtime.messages import GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

RunningEngine = Any

SHAPES = {
    f"blk.{layer}.{name}.weight": shape
    for layer in (0, 1)
    for name, shape in {"attn_q": (64, 64), "attn_v": (32, 64), "ffn_up": (128, 64), "ffn_down": (64, 128)}.items()
}


@dataclass(frozen=True)
class Named:
    adapter: str
    key: int


def test_items_of_one_adapter_go_together_the_current_one_first() -> None:
    items = [Named(name, key) for key, name in enumerate(["", "a", "b", "a", ""])]
    groups = by_adapter(items, current="a")
    assert [[each.key for each in group] for group in groups] == [[1, 3], [0, 4], [2]]
    assert by_adapter([], current="a") == []


@pytest.fixture
def adapters(tmp_path: Path) -> dict[str, Any]:
    """Engine options with two adapters, one of them at half of its scale."""
    for number, name in enumerate(("pirate", "poet")):
        write_adapter(tmp_path / f"{name}.gguf", SHAPES, seed=number)
    return {
        "pirate": {"path": str(tmp_path / "pirate.gguf")},
        "poet": {"path": str(tmp_path / "poet.gguf"), "scale": 0.5},
    }


async def test_a_request_gets_what_a_model_with_its_adapter_merged_says(
    engines: Callable[[], RunningEngine], tiny_model: Path, tmp_path: Path, adapters: dict[str, Any]
) -> None:
    running = engines()
    info = await running.load(tiny_model, engine_options={"lora": adapters}, max_sequences=4)
    assert info.lora == ("pirate", "poet")
    texts = {name: await running.greedy(f"{name}", lora=name) for name in (None, "pirate", "poet")}
    assert len(set(texts.values())) == 3
    for number, (name, scale) in enumerate({"pirate": 1.0, "poet": 0.5}.items()):
        added = write_adapter(tmp_path / "again.gguf", SHAPES, seed=number)
        merged = engines()
        path = write_model(tmp_path / f"{name}-merged.gguf", added={key: scale * each for key, each in added.items()})
        await merged.load(path, max_sequences=4)
        assert texts[name] == await merged.greedy("merged")
    plain = engines()
    await plain.load(tiny_model, max_sequences=4)
    assert texts[None] == await plain.greedy("plain")


@pytest.mark.parametrize("max_sequences", [3, 64])
async def test_requests_of_all_adapters_together_get_what_they_get_alone(
    engines: Callable[[], RunningEngine], tiny_model: Path, adapters: dict[str, Any], max_sequences: int
) -> None:
    running = engines()
    await running.load(tiny_model, engine_options={"lora": adapters}, max_sequences=max_sequences, context_length=256)
    alone = {}
    prompts = ["Hello", "Hello there, how are you today?", "x" * 70]
    for prompt in prompts:
        for name in (None, "pirate", "poet"):
            alone[prompt, name] = await running.greedy(f"{prompt[:1]}-{name}", prompt, tokens=20, lora=name)
    chance = random.Random(4)
    wanted = [(number, *chance.choice(list(alone))) for number in range(40)]
    sampling = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    for number, prompt, name in wanted:
        running.submit(GenerateRequest(id=str(number), prompt=prompt, sampling=sampling, lora=name))
    for number, prompt, name in wanted:
        await running.finish(str(number))
        assert running.text(str(number)) == alone[prompt, name]


async def test_a_prefix_is_shared_within_an_adapter_only(
    engines: Callable[[], RunningEngine], tiny_model: Path, adapters: dict[str, Any]
) -> None:
    running = engines()
    await running.load(tiny_model, engine_options={"lora": adapters}, max_sequences=4)
    cached = []
    for number, name in enumerate([None, "pirate", "poet", "pirate", None]):
        await running.greedy(str(number), "x" * 100, tokens=3, lora=name)
        usage = running.deltas[str(number)][-1].usage
        assert usage is not None
        cached.append(usage.cached_tokens)
    assert cached == [0, 0, 0, 99, 99]


async def test_a_request_with_an_adapter_can_be_resumed(
    engines: Callable[[], RunningEngine], tiny_model: Path, adapters: dict[str, Any]
) -> None:
    running = engines()
    await running.load(tiny_model, engine_options={"lora": adapters, "prefix_cache": False}, max_sequences=1)
    await running.greedy("whole", lora="pirate")
    whole = running.tokens("whole")
    await running.greedy("rest", lora="pirate", resume=tuple(whole[:11]))
    assert running.tokens("rest") == whole[11:]


@pytest.mark.parametrize("name", ["pirat", ""])
async def test_an_adapter_that_is_not_there_is_the_requests_own_error(
    engines: Callable[[], RunningEngine], tiny_model: Path, adapters: dict[str, Any], name: str
) -> None:
    running = engines()
    await running.load(tiny_model, engine_options={"lora": adapters})
    [delta] = await running.run(GenerateRequest(id="r", prompt="x", lora=name))
    assert delta.error is not None
    assert (delta.error.code, delta.error.param) == ("invalid_request", "lora")
    assert "there is pirate, poet" in delta.error.message
    assert await running.greedy("next", tokens=3)


def spec(model: Path, adapter: Path) -> ModelSpec:
    options = {"lora": {"a": {"path": str(adapter)}}, "threads": 1}
    return ModelSpec(uid="m", name="m", path=str(model), engine_options=options)


def test_the_memory_of_adapters_is_forecast(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    added = write_adapter(path, SHAPES)
    plain = inspect(ModelSpec(uid="m", name="m", path=str(tiny_model)))
    size = inspect(spec(tiny_model, path)).memory_bytes - plain.memory_bytes
    assert size == pytest.approx(sum(4 * 4 * sum(each.shape) for each in added.values()), rel=0.01)


def test_a_broken_adapter_is_refused_before_anything_is_loaded(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_adapter(path, SHAPES)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelFileError, match="cannot be used: it is truncated") as caught:
        inspect(spec(tiny_model, path))
    assert caught.value.param == "lora"
    with pytest.raises(ModelFileError, match="no LoRA adapter"):
        inspect(spec(tiny_model, tiny_model))
    write_adapter(path, SHAPES, architecture="gemma")
    with pytest.raises(ModelFileError, match="is for gemma, and the model is llama"):
        inspect(spec(tiny_model, path))


async def test_an_adapter_of_another_model_is_refused_with_llama_cpps_reason(
    engines: Callable[[], RunningEngine], tiny_model: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "a.gguf", {"blk.0.attn_q.weight": (128, 128)})
    with pytest.raises(ModelFileError, match="incorrect shape"):
        await engines().load(tiny_model, engine_options={"lora": {"a": {"path": str(tmp_path / "a.gguf")}}})
