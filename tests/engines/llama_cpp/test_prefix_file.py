"""Prefixes outlast the unloading of a model, and a file that is not what it should be is as good as none."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xinfer_runtime.catalog
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.engines.llama_cpp.options import Options
from xinfer_runtime.engines.llama_cpp.prefix_file import PrefixFile, holds_cells_of
from xinfer_runtime.engines.llama_cpp.prefix_identity import identity, prefix_file
from xinfer_runtime.engines.llama_cpp.prefix_store import SavedPrefix
from xinfer_runtime.messages import ChatMessage, GenerateRequest, SamplingParams
from xinfer_runtime.models import LoraAdapter

RunningEngine = Any
DEMO = Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf"
STORE = {"prefix_store_bytes": 64 << 20}
IDENTITY = bytes(range(32))
MOST = 10_000


def state_of(tokens: int, rest: int = 100) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What llama.cpp writes of a sequence of so many tokens, as far as it is looked at."""
    head = np.array([0xAF143CD8, 3, 1, tokens], dtype=np.uint32)
    cells = np.array([[position, 1, 3] for position in reversed(range(tokens))], dtype=np.int32)
    return np.concatenate([head.view(np.uint8), cells.reshape(-1).view(np.uint8), np.ones(rest, dtype=np.uint8)])


def saved(*tokens: int, adapter: str = "") -> SavedPrefix:
    return SavedPrefix(adapter, np.array(tokens, dtype=np.int32), state_of(len(tokens)))


@pytest.fixture
def file(tmp_path: Path) -> PrefixFile:
    file = PrefixFile(tmp_path / "prefixes" / "m", IDENTITY)
    assert file.write([saved(1, 2, 3), saved(7, 8, adapter="a")]) == 2
    return file


def test_what_was_written_is_read_in_its_order(file: PrefixFile) -> None:
    first, second = file.read(MOST)
    assert (first.adapter, first.tokens.tolist(), first.state.tolist()) == ("", [1, 2, 3], state_of(3).tolist())
    assert (second.adapter, second.tokens.tolist(), second.state.tolist()) == ("a", [7, 8], state_of(2).tolist())
    assert file.write([]) == 0
    assert file.read(MOST) == []
    assert PrefixFile(file.path.with_name("other"), IDENTITY).read(MOST) == []


def test_it_is_private_and_what_was_begun_is_removed(file: PrefixFile) -> None:
    old = file.path.with_name(f".{file.path.name}-old")
    old.touch()
    os.utime(old, (0, 0))
    file.write([saved(1, 2, 3)])
    assert os.listdir(file.path.parent) == [file.path.name]
    assert (file.path.stat().st_mode & 0o777, file.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_writer_that_fails_leaves_what_was_there(file: PrefixFile) -> None:
    def broken() -> Any:
        yield saved(9)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        file.write(broken())
    assert len(file.read(MOST)) == 2
    assert os.listdir(file.path.parent) == [file.path.name]


def test_any_change_of_a_byte_and_any_cut_is_noticed(file: PrefixFile) -> None:
    good = file.path.read_bytes()
    for place in range(len(good)):
        file.path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert file.read(MOST) == [], place
        file.path.write_bytes(good[:place])
        assert file.read(MOST) == [], place
    file.path.write_bytes(good + b"x")
    assert file.read(MOST) == []


def test_what_is_for_somebody_else_or_too_large_is_not_read(file: PrefixFile) -> None:
    assert PrefixFile(file.path, bytes(32)).read(MOST) == []
    both = sum(each.bytes for each in file.read(MOST))
    assert len(file.read(both)) == 2
    assert file.read(both - 1) == []


def test_a_file_that_others_can_write_a_link_and_a_pipe_are_not_read(file: PrefixFile) -> None:
    link = file.path.with_name("link")
    link.symlink_to(file.path)
    assert PrefixFile(link, IDENTITY).read(MOST) == []
    pipe = file.path.with_name("pipe")
    os.mkfifo(pipe, 0o600)
    assert PrefixFile(pipe, IDENTITY).read(MOST) == []
    file.path.chmod(0o620)
    assert file.read(MOST) == []


@pytest.mark.parametrize(
    ("word", "value"),
    [(2, 2), (3, 4), (3, 1 << 30), (4, -1), (4, 1), (4, 1 << 30), (5, 0), (5, 2)],
    ids=["streams", "cells", "many cells", "before", "twice", "far away", "nobody's", "two sequences'"],
)
def test_cells_other_than_those_of_the_tokens_never_reach_llama_cpp(file: PrefixFile, word: int, value: int) -> None:
    state = state_of(3)
    assert holds_cells_of(state, 3)
    assert not holds_cells_of(state, 4)
    assert not holds_cells_of(state[:50], 3)
    state.view(np.int32)[word] = value
    assert not holds_cells_of(state, 3)
    file.write([SavedPrefix("", np.array([1, 2, 3], dtype=np.int32), state)])
    assert file.read(MOST) == []


def test_another_file_or_another_setting_has_another_identity(tmp_path: Path) -> None:
    model, adapter = tmp_path / "m.gguf", tmp_path / "a.gguf"
    model.write_bytes(DEMO.read_bytes())
    adapter.write_bytes(b"1")

    def of(sizes: tuple[int, ...] = (512, 1024), **options: Any) -> bytes:
        return identity(read_gguf(model), Options(**options), sizes)

    adapters = {"a": LoraAdapter(path=str(adapter))}
    variants = [of(), of((512, 2048)), of(cache_type_k="q8_0"), of(flash_attention="on"), of(lora=adapters)]
    adapter.write_bytes(b"12")
    variants.append(of(lora=adapters))
    os.utime(model, (1, 1))
    variants.append(of())
    assert len(set(variants)) == len(variants)
    assert of() == of(threads=1, prefix_store_bytes=5)
    files = [prefix_file(uid, read_gguf(model), Options(), (), {"XINFER_HOME": str(tmp_path)}) for uid in ("a", "b")]
    assert files[0].path.parent == tmp_path / "prefixes"
    assert files[0].path != files[1].path


SYSTEM = "You are a friendly assistant who explains notebooks. " * 6


def question(name: str, text: str = "What is a notebook?") -> GenerateRequest:
    messages = (ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=text))
    return GenerateRequest(id=name, messages=messages, sampling=SamplingParams(temperature=0, max_tokens=30))


async def answer(engine: RunningEngine, request: GenerateRequest) -> tuple[str, int]:
    """The text, and how many tokens of the prompt were cached."""
    last = (await engine.run(request))[-1]
    return engine.text(request.id), last.usage.cached_tokens


async def test_after_unload_and_load_the_first_request_finds_its_prefix(engines: Callable[[], RunningEngine]) -> None:
    before, after, other = engines(), engines(), engines()
    await before.load(DEMO, max_sequences=4, engine_options=STORE)
    text, cached = await answer(before, question("one"))
    assert cached == 0
    await before.engine.close()

    await after.load(DEMO, max_sequences=4, engine_options=STORE)
    again, cached = await answer(after, question("two"))
    assert again == text
    assert cached >= 64
    stats = after.engine.stats()
    assert stats.restored_tokens == stats.cached_tokens == cached

    await other.load(DEMO, max_sequences=4, engine_options={**STORE, "flash_attention": "off"})
    assert await answer(other, question("three")) == (text, 0)


async def test_what_was_evicted_outlasts_the_model_too(engines: Callable[[], RunningEngine], tiny_model: Path) -> None:
    options = {**STORE, "kv_cells": 512}
    before, after = engines(), engines()
    await before.load(tiny_model, max_sequences=4, engine_options=options)
    names = ("one", "two", "six", "ten")
    texts = [await before.greedy(name, f"{name} " * 40, 100) for name in names]
    await before.engine.close()
    await after.load(tiny_model, max_sequences=4, engine_options=options)
    assert [await after.greedy(name, f"{name} " * 40, 100) for name in names] == texts
    assert all(after.deltas[name][-1].usage.cached_tokens >= 100 for name in names)


async def test_a_home_that_cannot_be_written_only_loses_the_prefixes(
    engines: Callable[[], RunningEngine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("no folder")
    engine = engines()
    await engine.load(DEMO, max_sequences=4, engine_options=STORE)
    await answer(engine, question("one"))
    await engine.engine.close()
    assert "cannot be kept" in caplog.text


async def test_without_a_store_nothing_is_written(engines: Callable[[], RunningEngine], tmp_path: Path) -> None:
    engine = engines()
    await engine.load(DEMO, max_sequences=4)
    await answer(engine, question("one"))
    await engine.engine.close()
    assert not (tmp_path / "home").exists()
