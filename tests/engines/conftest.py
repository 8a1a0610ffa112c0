"""A tiny Llama with random weights, written as GGUF: a vocabulary of all 256 bytes, so that any UTF-8 can come out."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest
from numpy.typing import NDArray

from xinfer_runtime.engines.registry import create_engine
from xinfer_runtime.engines.sequence_state import SequenceState
from xinfer_runtime.messages import Delta, GenerateRequest, ReplicaRequest, SamplingParams
from xinfer_runtime.models import ModelInfo, ModelSpec

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_symbols() -> list[str]:
    """The characters that byte-level BPE writes the 256 bytes with (as in GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_model(
    path: Path,
    context_length: int = 512,
    template: str | None = TEMPLATE,
    seed: int = 1,
    infill: bool = False,
    added: Mapping[str, NDArray[np.float32]] | None = None,
    pooling: gguf.PoolingType | None = None,
) -> Path:
    """`added` is added to the weights of these names."""
    width, layers, heads, kv_heads, inner = 64, 2, 4, 2, 128
    rng = np.random.default_rng(seed)
    symbols = byte_symbols()
    tokens = [*symbols, "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "th"]
    kinds = (
        [gguf.TokenType.NORMAL] * 256
        + [gguf.TokenType.CONTROL] * 3
        + [gguf.TokenType.USER_DEFINED] * 2
        + [gguf.TokenType.NORMAL]
    )
    if infill:
        tokens += ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
        kinds += [gguf.TokenType.CONTROL] * 3

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(258)
    writer.add_bos_token_id(256)
    writer.add_add_bos_token(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if template is not None:
        writer.add_chat_template(template)

    def tensor(name: str, *shape: int, scale: float) -> None:
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        writer.add_tensor(name, values + (added or {}).get(name, np.float32(0)))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), width, scale=1.0)
    for layer in range(layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        tensor(f"{block}.attn_q.weight", width, width, scale=0.3)
        tensor(f"{block}.attn_k.weight", width * kv_heads // heads, width, scale=0.3)
        tensor(f"{block}.attn_v.weight", width * kv_heads // heads, width, scale=0.3)
        tensor(f"{block}.attn_output.weight", width, width, scale=0.3)
        tensor(f"{block}.ffn_gate.weight", inner, width, scale=0.2)
        tensor(f"{block}.ffn_up.weight", inner, width, scale=0.2)
        tensor(f"{block}.ffn_down.weight", width, inner, scale=0.2)
    ones("output_norm.weight")
    tensor("output.weight", len(tokens), width, scale=0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ModelMaker = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> ModelMaker:
    """Writes a model file of its own for a test; takes what `write_model` takes."""
    return lambda **options: write_model(tmp_path / "made.gguf", **options)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-f32.gguf")


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XINFER_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def exact_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention and KV cache in f32, so that company in a batch changes logits by 1e-5 and not by 1e-2.

    With random weights close choices are common; what is tested is the engine, not llama.cpp's rounding.
    """
    defaults = llama_cpp.llama_context_default_params

    def exact() -> llama_cpp.llama_context_params:
        params = defaults()
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        return params

    monkeypatch.setattr(llama_cpp, "llama_context_default_params", exact)
    monkeypatch.setattr(llama_cpp, "LLAMA_FLASH_ATTN_TYPE_AUTO", llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)


class RunningEngine:
    """A loaded engine and what it emitted, by request."""

    def __init__(self, model_type: str = "LLM") -> None:
        self.model_type = model_type
        self.engine = create_engine("llama.cpp", model_type)
        self.deltas: defaultdict[str, list[Delta]] = defaultdict(list)
        self.steps: list[list[Delta]] = []
        self.progress: list[tuple[float, str]] = []
        self._arrived = asyncio.Event()

    async def load(self, path: Path, engine_options: dict[str, Any] | None = None, **spec: Any) -> ModelInfo:
        # One thread: llama.cpp's threads spin while they wait for each other, which is slow where cores are shared.
        options = {"threads": 1, **(engine_options or {})}
        wanted = ModelSpec(
            uid="tiny", name="tiny", type=self.model_type, path=str(path), engine_options=options, **spec
        )
        return await self.engine.load(wanted, self._emit, lambda *report: self.progress.append(report))

    def _emit(self, deltas: Sequence[Delta]) -> None:
        self.steps.append(list(deltas))
        for delta in deltas:
            self.deltas[delta.id].append(delta)
        self._arrived.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was emitted makes the condition true."""
        while not condition():
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 30)

    def submit(self, request: ReplicaRequest, state: SequenceState | None = None) -> None:
        self.deltas[request.id] = []
        self.engine.submit(request, state)

    async def finish(self, request_id: str) -> list[Delta]:
        await self.until(lambda: bool(self.deltas[request_id]) and self.deltas[request_id][-1].last)
        return self.deltas[request_id]

    async def run(self, request: ReplicaRequest) -> list[Delta]:
        self.submit(request)
        return await self.finish(request.id)

    async def greedy(self, request_id: str, prompt: str = "Hello", tokens: int = 30, **fields: Any) -> str:
        """The text of a greedy request that goes on for so many tokens."""
        sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        await self.run(GenerateRequest(id=request_id, prompt=prompt, sampling=sampling, **fields))
        return self.text(request_id)

    def text(self, request_id: str) -> str:
        return "".join(delta.text for delta in self.deltas[request_id])

    def tokens(self, request_id: str) -> list[int]:
        return [token for delta in self.deltas[request_id] for token in delta.token_ids]


@pytest.fixture
async def running(tiny_model: Path) -> AsyncIterator[RunningEngine]:
    """An engine with the tiny model, for 64 requests at once."""
    engine = RunningEngine()
    await engine.load(tiny_model, max_sequences=64)
    yield engine
    await engine.engine.close()


@pytest.fixture
async def engines() -> AsyncIterator[Callable[..., RunningEngine]]:
    """Makes engines to load as a test likes, and closes them."""
    made: list[RunningEngine] = []

    def make(model_type: str = "LLM") -> RunningEngine:
        made.append(RunningEngine(model_type))
        return made[-1]

    yield make
    for engine in made:
        await engine.engine.close()
