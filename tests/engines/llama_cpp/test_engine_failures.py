"""What goes wrong: with files, with requests, inside llama.cpp, and at the end."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from xinfer_runtime.engines.llama_cpp import batch_sampler
from xinfer_runtime.engines.llama_cpp.context import NO_CELLS, Chunk, Context
from xinfer_runtime.engines.registry import create_engine
from xinfer_runtime.errors import InvalidRequest, ModelFileError
from xinfer_runtime.messages import ChatMessage, Delta, GenerateRequest, SamplingParams
from xinfer_runtime.models import ModelSpec

RunningEngine = Any


async def error_of(running: RunningEngine, **fields: Any) -> Delta:
    """The only delta of a request that fails at once."""
    (delta,) = await running.run(GenerateRequest(id="bad", **fields))
    assert delta.error is not None
    return delta


async def test_a_missing_file_is_named(engines: Callable[[], RunningEngine], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere\.gguf"):
        await engines().load(tmp_path / "nowhere.gguf")


async def test_a_file_of_another_kind_is_refused(engines: Callable[[], RunningEngine], tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("not a model")
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        await engines().load(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
async def test_a_truncated_file_is_refused(
    engines: Callable[[], RunningEngine], make_model: Callable[..., Path], kept: float
) -> None:
    path = make_model()
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(ModelFileError, match="truncated"):
        await engines().load(path)


async def test_what_llama_cpp_says_of_a_file_reaches_the_error(
    engines: Callable[[], RunningEngine], make_model: Callable[..., Path]
) -> None:
    path = make_model()
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"blk.1.attn_q.weight", b"blk.1.attn_x.weight"))
    with pytest.raises(ModelFileError, match=r"attn_q"):
        await engines().load(path)


async def test_nothing_is_printed(
    engines: Callable[[], RunningEngine], tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    running = engines()
    await running.load(tiny_model)
    await running.greedy("r")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


async def test_a_gpu_that_this_build_cannot_use_is_refused(
    engines: Callable[[], RunningEngine], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xinfer_runtime.engines.llama_cpp.loading.supports_gpu", lambda: False)
    with pytest.raises(InvalidRequest, match="no GPU support"):
        await engines().load(tiny_model, n_gpu=1)


@pytest.mark.parametrize("options", [{"thread": 1}, {"threads": "many"}, {"kv_cells": 0}])
async def test_an_option_that_is_none_is_refused(
    engines: Callable[[], RunningEngine], tiny_model: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="engine_options"):
        await engines().load(tiny_model, engine_options=options)


@pytest.mark.parametrize("kind", ["prompt", "messages", "token_ids"])
async def test_a_prompt_longer_than_the_context_names_both_numbers(running: RunningEngine, kind: str) -> None:
    value: Any = {
        "prompt": "x" * 600,
        "messages": (ChatMessage(role="user", content="x" * 600),),
        "token_ids": (72,) * 600,
    }[kind]
    error = (await error_of(running, **{kind: value})).error
    assert error is not None
    assert error.code == "context_length_exceeded"
    assert error.param == kind
    assert "512" in error.message
    assert "6" in error.message


async def test_megabytes_are_refused_without_tokenizing_them(running: RunningEngine) -> None:
    error = (await error_of(running, prompt="x" * 50_000_000)).error
    assert error is not None
    assert "at least" in error.message


@pytest.mark.parametrize("tokens", [(-1,), (262,), (2**31,)])
async def test_token_ids_that_are_none_fail_alone(running: RunningEngine, tokens: tuple[int, ...]) -> None:
    running.submit(GenerateRequest(id="good", prompt="x", sampling=SamplingParams(max_tokens=50, ignore_eos=True)))
    for field in ("token_ids", "resume"):
        error = (
            await error_of(running, **{"prompt" if field == "resume" else "token_ids": tokens, field: tokens})
            if field == "token_ids"
            else await error_of(running, prompt="x", resume=tokens)
        ).error
        assert error is not None
        assert (error.code, error.param) == ("invalid_request", field)
    assert (await running.finish("good"))[-1].error is None


async def test_a_request_without_a_prompt_is_refused(running: RunningEngine) -> None:
    error = (await error_of(running)).error
    assert error is not None
    assert error.code == "invalid_request"


async def test_messages_that_the_template_refuses_fail_alone(
    engines: Callable[[], RunningEngine], make_model: Callable[..., Path]
) -> None:
    running = engines()
    await running.load(make_model(template="{{ raise_exception('roles must alternate') }}"))
    error = (await error_of(running, messages=(ChatMessage(role="user", content="x"),))).error
    assert error is not None
    assert "roles must alternate" in error.message
    assert await running.greedy("after")


@pytest.mark.parametrize("template", [None, "{% if %}"])
async def test_a_model_without_a_working_template_completes_and_does_not_chat(
    engines: Callable[[], RunningEngine], make_model: Callable[..., Path], template: str | None
) -> None:
    running = engines()
    info = await running.load(make_model(template=template))
    assert info.abilities == ("generate",)
    error = (await error_of(running, messages=(ChatMessage(role="user", content="x"),))).error
    assert error is not None
    assert "cannot chat" in error.message
    assert await running.greedy("after")


async def test_a_failed_batch_fails_its_requests_and_the_engine_goes_on(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await running.greedy("before")
    decode = Context.decode
    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", lambda *_: -3)
        error = (await error_of(running, prompt="x")).error
    assert Context.decode is decode
    assert error is not None
    assert (error.code, "-3" in error.message) == ("engine_error", True)
    assert await running.greedy("after") == expected
    assert running.engine.stats().running == 0


@pytest.mark.parametrize("layout", [{}, {"kv_cells": 4096}])
async def test_a_failed_batch_fails_the_request_that_caused_it_and_no_other(
    engines: Callable[[], RunningEngine], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, int]
) -> None:
    running = engines()
    await running.load(tiny_model, layout, max_sequences=16)
    prompts = [f"prompt {n}" for n in range(12)]
    expected = [await running.greedy(f"alone {n}", prompt) for n, prompt in enumerate(prompts)]
    decode = Context.decode
    poison = list(b"!!!")

    def failing(self: Context, chunks: Sequence[Chunk]) -> int:
        code = decode(self, chunks)
        return -3 if any(list(chunk.tokens[:3]) == poison for chunk in chunks) else code

    monkeypatch.setattr(Context, "decode", failing)
    running.submit(GenerateRequest(id="bad", prompt="!!! poison", sampling=SamplingParams(max_tokens=5)))
    together = [running.greedy(f"together {n}", prompt) for n, prompt in enumerate(prompts)]
    assert await asyncio.gather(*together) == expected
    error = (await running.finish("bad"))[-1].error
    assert error is not None
    assert "-3" in error.message
    stats = running.engine.stats()
    assert (stats.running, stats.kv_used) == (0, 0)


async def test_an_exception_in_a_step_fails_its_requests_and_the_engine_goes_on(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ArithmeticError("two and two")

    expected = await running.greedy("before")
    with monkeypatch.context() as patch:
        patch.setattr(batch_sampler, "sample", broken)
        error = (await error_of(running, prompt="x")).error
    assert error is not None
    assert "two and two" in error.message
    assert await running.greedy("after") == expected


async def test_a_cache_that_is_full_against_expectation_preempts_and_retries(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [await running.greedy(f"alone {n}", f"prompt {n}") for n in range(6)]
    decode = Context.decode
    monkeypatch.setattr(Context, "decode", lambda self, chunks: NO_CELLS if len(chunks) > 2 else decode(self, chunks))
    assert await asyncio.gather(*(running.greedy(f"r{n}", f"prompt {n}") for n in range(6))) == expected


async def test_a_request_for_which_the_cache_never_has_room_fails(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", lambda *_: NO_CELLS)
        error = (await error_of(running, prompt="x")).error
    assert error is not None
    assert "no room" in error.message
    assert await running.greedy("after")


async def test_closing_ends_requests_in_flight_with_an_error(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    running = engines()
    await running.load(tiny_model, max_sequences=2)
    sampling = SamplingParams(max_tokens=400, ignore_eos=True)
    for n in range(20):
        running.submit(GenerateRequest(id=f"r{n}", prompt="x", sampling=sampling))
    await running.until(lambda: len(running.tokens("r0")) > 1)
    await running.engine.close()
    assert [running.deltas[f"r{n}"][-1].error.code for n in range(20)] == ["engine_error"] * 20


async def test_a_request_after_closing_gets_an_error(engines: Callable[[], RunningEngine], tiny_model: Path) -> None:
    running = engines()
    await running.load(tiny_model)
    await running.engine.close()
    assert (await error_of(running, prompt="x")).error is not None


async def test_closing_twice_and_closing_what_never_loaded_do_nothing(
    engines: Callable[[], RunningEngine], tiny_model: Path
) -> None:
    never, twice = engines(), engines()
    await twice.load(tiny_model)
    await twice.engine.close()
    await twice.engine.close()
    await never.engine.close()


async def test_a_load_can_be_cancelled(engines: Callable[[], RunningEngine], tiny_model: Path) -> None:
    running = engines()
    task = asyncio.ensure_future(running.load(tiny_model))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await running.engine.close()


def test_an_engine_whose_event_loop_is_gone_ends_its_thread(tiny_model: Path) -> None:
    engine = create_engine("llama.cpp")

    async def leave_without_closing() -> None:
        await engine.load(ModelSpec(uid="x", name="x", path=str(tiny_model)), lambda _: None, lambda *_: None)
        sampling = SamplingParams(max_tokens=500, ignore_eos=True)
        engine.submit(GenerateRequest(id="r", prompt="x", sampling=sampling))

    asyncio.run(leave_without_closing())
    thread = engine._thread  # type: ignore[attr-defined]
    thread.join(timeout=30)
    assert not thread.is_alive()
