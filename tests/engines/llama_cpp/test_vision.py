"""Images in prompts, with a tiny transformer: against libmtmd, in company, cached, resumed, preempted, broken."""

import ctypes
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import mtmd_cpp as mtmd
from PIL import Image
from tests.engines.conftest import ModelMaker, RunningEngine
from tests.engines.projector_files import IMAGE_TOKENS, picture, write_projector

from xinfer_runtime.errors import InvalidRequest, ModelFileError
from xinfer_runtime.messages import ChatImage, ChatMessage, GenerateRequest, SamplingParams, Tokenization

TOKENS = 24
Engines = Callable[..., RunningEngine]


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_projector(tmp_path_factory.mktemp("projectors") / "mmproj-tiny.gguf")


@pytest.fixture
async def sees(engines: Engines, tiny_model: Path, projector: Path) -> RunningEngine:
    engine = engines()
    info = await engine.load(tiny_model, {"multimodal_projector": str(projector)}, max_sequences=16)
    assert "vision" in info.abilities
    return engine


def asked(request_id: str, *images: bytes, text: str = "What is it?", **fields: Any) -> GenerateRequest:
    """A question after the first word of which the images are."""
    places = tuple(ChatImage(image, 5, f"messages[0].content[{i}]") for i, image in enumerate(images))
    sampling = fields.pop("sampling", SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True))
    messages = fields.pop("messages", (ChatMessage(role="user", content=text, images=places),))
    return GenerateRequest(id=request_id, messages=messages, sampling=sampling, **fields)


async def tokens(engine: RunningEngine, request: GenerateRequest) -> list[int]:
    deltas = await engine.run(request)
    assert deltas[-1].error is None
    return engine.tokens(request.id)


def told_by_libmtmd(model_path: Path, projector: Path, prompt: bytes, image: bytes) -> list[int]:
    """The greedy answer as libmtmd's own helpers compute it, one request alone."""
    model = llama_cpp.llama_model_load_from_file(str(model_path).encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 512, 1, 1
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    options = mtmd.mtmd_context_params_default()
    options.use_gpu, options.print_timings, options.n_threads = False, False, 1
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    eyes = mtmd.mtmd_init_from_file(str(projector).encode(), model, options)
    raw = (ctypes.c_ubyte * len(image)).from_buffer_copy(image)
    made = mtmd.mtmd_helper_bitmap_init_from_buf(eyes, raw, len(image), False, mtmd.mtmd_helper_init_opt_default())
    chunks = mtmd.mtmd_input_chunks_init()
    text = mtmd.mtmd_input_text(prompt, len(prompt), False, True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(made)
    assert mtmd.mtmd_tokenize(eyes, chunks, ctypes.byref(text), bitmaps, 1) == 0
    past = llama_cpp.llama_pos(0)
    assert mtmd.mtmd_helper_eval_chunks(eyes, context, chunks, 0, 0, 512, True, ctypes.byref(past)) == 0
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    count = llama_cpp.llama_vocab_n_tokens(vocabulary)
    answer: list[int] = []
    while len(answer) < TOKENS:
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(count,))
        answer.append(int(logits.argmax()))
        one = (llama_cpp.llama_token * 1)(answer[-1])
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1)) == 0
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(made)
    mtmd.mtmd_free(eyes)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return answer


async def test_the_answer_is_that_of_libmtmd_computing_alone(
    sees: RunningEngine, tiny_model: Path, projector: Path
) -> None:
    prompt = b"<|im_start|>user\nWhat <__media__>is it?<|im_end|>\n<|im_start|>assistant\n"

    for seed in (1, 2, 3):
        expected = told_by_libmtmd(tiny_model, projector, prompt, picture(seed))

        assert await tokens(sees, asked(f"r{seed}", picture(seed))) == expected


async def test_the_image_is_what_the_answer_is_about(sees: RunningEngine) -> None:
    one, other = await tokens(sees, asked("a", picture(1))), await tokens(sees, asked("b", picture(2)))

    assert one != other
    assert await tokens(sees, asked("c", picture(1))) == one
    assert await tokens(sees, asked("d")) not in (one, other)


async def test_an_image_counts_as_the_tokens_that_it_takes(sees: RunningEngine) -> None:
    [without] = (await sees.run(asked("a")))[-1:]
    [with_two] = (await sees.run(asked("b", picture(1), picture(2))))[-1:]

    assert without.usage is not None
    assert with_two.usage is not None
    assert with_two.usage.prompt_tokens == without.usage.prompt_tokens + 2 * IMAGE_TOKENS


@pytest.mark.parametrize("options", [{}, {"kv_cells": 2048}], ids=["split", "unified"])
async def test_in_company_each_request_answers_as_it_does_alone(
    engines: Engines, tiny_model: Path, projector: Path, options: dict[str, int]
) -> None:
    engine = engines()
    await engine.load(tiny_model, {"multimodal_projector": str(projector), **options}, max_sequences=8)
    requests = [
        *(asked(f"seen-{i}", picture(i)) for i in range(4)),
        *(asked(f"both-{i}", picture(i), picture(9)) for i in range(2)),
        *(asked(f"read-{i}", text=f"Say {i} in words") for i in range(4)),
    ]
    alone = {request.id: await tokens(engine, request) for request in requests}

    for request in requests:
        engine.submit(request)
    for request in requests:
        await engine.finish(request.id)

    assert {request.id: engine.tokens(request.id) for request in requests} == alone


async def test_a_second_turn_finds_the_image_in_the_cache_and_another_image_does_not(sees: RunningEngine) -> None:
    await sees.run(asked("first", picture(1)))
    answer = sees.text("first")
    images = (ChatImage(picture(1), 5),)
    turns = (
        ChatMessage(role="user", content="What is it?", images=images),
        ChatMessage(role="assistant", content=answer),
        ChatMessage(role="user", content="Sure?"),
    )
    others = (ChatMessage(role="user", content="What is it?", images=(ChatImage(picture(2), 5),)), *turns[1:])

    [same] = (await sees.run(asked("same", messages=turns)))[-1:]
    [other] = (await sees.run(asked("other", messages=others)))[-1:]

    assert same.usage is not None
    assert other.usage is not None
    assert same.usage.cached_tokens > IMAGE_TOKENS
    assert other.usage.cached_tokens < IMAGE_TOKENS


async def test_it_goes_on_where_another_replica_left_off(sees: RunningEngine) -> None:
    whole = await tokens(sees, asked("whole", picture(3)))

    assert await tokens(sees, asked("rest", picture(3), resume=tuple(whole[:9]))) == whole[9:]


async def test_it_leaves_without_its_state_and_goes_on_elsewhere(sees: RunningEngine) -> None:
    """As when its replica is to go."""
    sampling = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    whole = await tokens(sees, asked("whole", picture(1), sampling=sampling))
    sees.submit(asked("leaves", picture(1), sampling=sampling))
    await sees.until(lambda: len(sees.tokens("leaves")) >= TOKENS)

    assert await sees.engine.export_state("leaves") is None
    begun = tuple(sees.tokens("leaves"))
    assert begun == tuple(whole[: len(begun)])
    assert await tokens(sees, asked("goes on", picture(1), sampling=sampling, resume=begun)) == whole[len(begun) :]


async def test_preempted_requests_come_to_the_same_end(engines: Engines, tiny_model: Path, projector: Path) -> None:
    engine = engines()
    options = {"multimodal_projector": str(projector), "kv_cells": 256}
    await engine.load(tiny_model, options, max_sequences=4, context_length=256)
    long = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True)
    requests = [asked(f"r{i}", picture(i), sampling=long) for i in range(4)]
    alone = {request.id: await tokens(engine, request) for request in requests}

    for request in requests:
        engine.submit(request)
    for request in requests:
        await engine.finish(request.id)

    assert engine.engine._loop._scheduler.preemptions > 0  # type: ignore[attr-defined]
    assert {request.id: engine.tokens(request.id) for request in requests} == alone


async def test_a_broken_image_ends_its_own_request_alone(sees: RunningEngine) -> None:
    fine = await tokens(sees, asked("fine", picture(1)))
    sees.submit(asked("fine again", picture(1)))
    broken = picture(2)[:60] + bytes(40)

    [refusal] = await sees.run(asked("broken", picture(3), broken))

    assert refusal.error is not None
    assert refusal.error.code == InvalidRequest.code
    assert refusal.error.param == "messages[0].content[1]"
    await sees.finish("fine again")
    assert sees.tokens("fine again") == fine


async def test_an_aborted_request_frees_what_it_had(sees: RunningEngine) -> None:
    endless = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    sees.submit(asked("gone", picture(1), sampling=endless))
    await sees.until(lambda: bool(sees.deltas["gone"]))
    sees.engine.abort("gone")

    await sees.run(asked("next", picture(2)))

    assert sees.engine.stats().running == 0
    assert len(sees.tokens("gone")) < 400


async def test_images_too_many_for_the_context_are_refused(sees: RunningEngine) -> None:
    [refusal] = await sees.run(asked("many", *(picture(i) for i in range(40))))

    assert refusal.error is not None
    assert refusal.error.code == "context_length_exceeded"


async def test_a_count_of_tokens_counts_images(sees: RunningEngine) -> None:
    [plain] = await sees.run(asked("plain", tokenize=Tokenization()))
    [counted] = await sees.run(asked("counted", picture(1), tokenize=Tokenization()))

    assert len(counted.token_ids) == len(plain.token_ids) + IMAGE_TOKENS


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_every_format_is_read(sees: RunningEngine, kind: str) -> None:
    assert len(await tokens(sees, asked(kind, picture(1, kind)))) == TOKENS


async def test_a_photo_is_seen_as_it_was_taken(sees: RunningEngine) -> None:
    upright = Image.open(io.BytesIO(picture(1)))
    file, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6  # To be turned clockwise.
    upright.rotate(90, expand=True).save(file, "PNG", exif=turned)

    assert await tokens(sees, asked("turned", file.getvalue())) == await tokens(sees, asked("upright", picture(1)))


async def test_penalties_and_log_probabilities_work_beside_images(sees: RunningEngine) -> None:
    sampling = SamplingParams(seed=7, max_tokens=8, repetition_penalty=1.3, logprobs=2, ignore_eos=True)

    deltas = await sees.run(asked("p", picture(1), sampling=sampling))

    assert deltas[-1].error is None
    assert sum(len(delta.logprobs) for delta in deltas) == 8


async def test_a_model_without_a_projector_takes_text_only(running: RunningEngine) -> None:
    [refusal] = await running.run(asked("r", picture(1)))

    assert refusal.error is not None
    assert refusal.error.code == InvalidRequest.code
    assert "text only" in refusal.error.message


async def test_a_template_that_takes_parts_gets_parts(
    engines: Engines, make_model: ModelMaker, projector: Path
) -> None:
    template = (
        "{% for m in messages %}{% if m.content is not string %}{% for part in m.content %}{{ part.text }}{% endfor %}"
        "{% endif %}{% endfor %}"
    )
    engine = engines()
    await engine.load(make_model(template=template), {"multimodal_projector": str(projector)})

    [counted] = await engine.run(asked("counted", picture(1), tokenize=Tokenization()))

    assert counted.error is None
    assert len(counted.token_ids) > IMAGE_TOKENS


async def test_a_template_that_leaves_images_out_is_an_error(
    engines: Engines, make_model: ModelMaker, projector: Path
) -> None:
    engine = engines()
    await engine.load(make_model(template="Hello"), {"multimodal_projector": str(projector)})

    [refusal] = await engine.run(asked("r", picture(1)))

    assert refusal.error is not None
    assert "leaves out images" in refusal.error.message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"text_width": 32}, "mm.2.weight"),
        ({"projector": "gemma3"}, "those after them"),
        ({"projector": "qwen2vl_merger"}, "M-RoPE"),
        ({"changed": {"attention.head_count": 0}}, "head_count"),
        ({"changed": {"patch_size": 0}}, "patch_size"),
        ({"changed": {"image_size": 4096, "patch_size": 8}}, "positions"),
        ({"changed": {"block_count": 1}}, "layer 1"),
        ({"shapes": {"v.blk.0.attn_q.weight": (32, 16)}}, "attn_q"),
        ({"shapes": {"v.blk.1.ffn_up.weight": (8, 8)}}, "ffn_up"),
        ({"shapes": {"v.patch_embd.weight": (32, 3, 4, 4)}}, "patch_embd"),
    ],
)
async def test_a_projector_that_does_not_fit_is_refused_before_it_is_loaded(
    engines: Engines, tiny_model: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    path = write_projector(tmp_path / "bad.gguf", **options)

    with pytest.raises(ModelFileError, match=reason) as refusal:
        await engines().load(tiny_model, {"multimodal_projector": str(path)})

    assert refusal.value.param == "multimodal_projector"


async def test_a_model_is_no_projector(engines: Engines, tiny_model: Path) -> None:
    with pytest.raises(ModelFileError, match="none that makes something of images"):
        await engines().load(tiny_model, {"multimodal_projector": tiny_model.name})


@pytest.mark.parametrize("option", [{"speculation": "prompt-lookup"}, {"prefix_store_bytes": 1 << 20}])
async def test_what_cannot_be_combined_is_refused(
    engines: Engines, tiny_model: Path, projector: Path, option: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="Leave one of the two out"):
        await engines().load(tiny_model, {"multimodal_projector": str(projector), **option})
