"""What the header of a GGUF file says of its model."""

from dataclasses import dataclass
from pathlib import Path

from xinfer_runtime.catalog.gguf_metadata import Value
from xinfer_runtime.catalog.gguf_tensors import Tensor
from xinfer_runtime.catalog.gguf_types import FILE_TYPES, TENSOR_TYPES
from xinfer_runtime.engines.llama_cpp.sizing import CacheShape


@dataclass(frozen=True)
class GgufFile:
    """What the header says."""

    path: Path
    file_bytes: int
    data_start: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    """Of all parts, where the model is split into several files; the rest is what the first one says."""
    weight_bytes: int
    """Everything after the headers, padding between tensors included."""

    @property
    def architecture(self) -> str:
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        return self._text("general.name")

    @property
    def chat_template(self) -> str | None:
        return self._text("tokenizer.chat_template") or None

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def context_length(self) -> int:
        """Tokens that the model was trained for, 0 where the file does not say."""
        return self._number("context_length")

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding, 0 where there is none."""
        embedding = next((tensor for tensor in self.tensors if tensor.name == "token_embd.weight"), None)
        return embedding.shape[1] if embedding and len(embedding.shape) == 2 else 0

    @property
    def embedding_length(self) -> int:
        return self._number("embedding_length")

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.metadata.get(f"{self.architecture}.attention.causal", True) is not False

    @property
    def pooling_number(self) -> int:
        """How the file says that vectors of tokens become one, in llama.cpp's numbers; 0 where it does not."""
        return self._number("pooling_type")

    @property
    def quantization(self) -> str:
        """Such as Q4_K_M: what the file says, or else the type that most weights have."""
        label = FILE_TYPES.get(self._int("general.file_type", -1))
        if label is not None:
            return label
        weights: dict[int, int] = {}
        for tensor in self.tensors:
            weights[tensor.type] = weights.get(tensor.type, 0) + tensor.elements
        most = max(weights, key=weights.__getitem__, default=-1)
        return TENSOR_TYPES[most][0] if most in TENSOR_TYPES else ""

    @property
    def cache_shape(self) -> CacheShape:
        """Elements of K and V per token over all layers, as llama.cpp allocates them.

        Layers without attention (head_count_kv 0) hold none. Sliding-window layers are counted in full: the engine
        keeps llama.cpp's default of full-size caches for them.
        """
        layers = self.layers
        if latent := self._number("attention.kv_lora_rank"):
            # Multi-head latent attention caches the compressed vector and its rotary part in place of heads.
            return CacheShape(layers * (latent + self._number("rope.dimension_count")), 0)
        heads = self.metadata.get(f"{self.architecture}.attention.head_count_kv", self._number("attention.head_count"))
        per_layer = heads if isinstance(heads, list) else [heads] * layers
        count = sum(int(n) for n in per_layer if isinstance(n, int) and n > 0)
        return CacheShape(count * self.key_length, count * self.value_length)

    @property
    def feed_forward_length(self) -> int:
        """Elements between the two halves of a feed-forward layer, of all experts that a token goes to."""
        dense, expert = self._number("feed_forward_length"), self._number("expert_feed_forward_length")
        return max(dense, self._number("expert_used_count") * (expert or dense))

    @property
    def key_value_width(self) -> int:
        """Elements of all keys of one token in one layer."""
        return self._number("attention.head_count_kv", self.head_count) * self.key_length

    @property
    def layers(self) -> int:
        return self._number("block_count")

    @property
    def head_count(self) -> int:
        return self._number("attention.head_count")

    @property
    def key_length(self) -> int:
        """Elements of the key of one head."""
        return self._number("attention.key_length", self._head_length)

    @property
    def value_length(self) -> int:
        return self._number("attention.value_length", self._head_length)

    @property
    def _head_length(self) -> int:
        return self.embedding_length // self.head_count if self.head_count else 0

    def _number(self, key: str, default: int = 0) -> int:
        return self._int(f"{self.architecture}.{key}", default)

    def _int(self, key: str, default: int) -> int:
        value = self.metadata.get(key)
        if isinstance(value, list):  # Per layer: the largest is what buffers are made for.
            value = max((item for item in value if isinstance(item, int)), default=default)
        return value if isinstance(value, int) and value >= 0 else default

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""
