"""How the next token is chosen: the fields that all of OpenAI's generating routes have in common."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from jupyter_xinfer.protocol.structured_output import GuidedFields
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import DryParams, MirostatParams, Priority, SamplingParams

Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
PositiveInt = Annotated[int, Meta(ge=1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# llama.cpp and PyTorch generators take 64-bit seeds; OpenAI documents signed 64 bit.
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1024
MAX_BIASES = 1024
MAX_BREAKERS = 32
MAX_BREAKER_BYTES = 40
"""llama.cpp and koboldcpp cut longer ones off."""
MAX_CHOICES = 128
"""Choices that one request may ask for, over all of its prompts: OpenAI's bound of `n`."""


class PlainStreamOptions(Struct, forbid_unknown_fields=True):
    include_obfuscation: bool = False

    def __post_init__(self) -> None:
        if self.include_obfuscation:
            raise ValueError("This server pads no events: `include_obfuscation` cannot be true")


class StreamOptions(PlainStreamOptions, forbid_unknown_fields=True):
    include_usage: bool = False


class SamplingFields(GuidedFields, kw_only=True, forbid_unknown_fields=True):
    """What chat and text completions have in common. `user` and `metadata` describe the caller, not the output."""

    model: Annotated[str, Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Probability | None = None
    typical_p: Probability | None = None
    xtc_probability: Probability | None = None
    xtc_threshold: Probability | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Meta(ge=1, le=100)] | None = None
    dry_allowed_length: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    dry_penalty_last_n: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    dry_sequence_breakers: list[str] | None = None
    mirostat_mode: Literal[0, 1, 2] | None = None
    mirostat_tau: Annotated[float, Meta(gt=0, le=100)] | None = None
    mirostat_eta: Annotated[float, Meta(ge=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    logit_bias: dict[str, float] | None = None
    lora_name: str | None = None
    priority: Priority | None = None
    timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None

    unsupported: ClassVar[Mapping[str, str]] = {}
    """Documented parameters that this server refuses, each with what it can do instead."""
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Values of such parameters that ask for what the server does anyway."""

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def refuse_unsupported(self) -> None:
        """Raise `InvalidRequest` for the first documented parameter that asks for what this server cannot do."""
        for name, instead in self.unsupported.items():
            value = getattr(self, name)
            if value is not None and value not in self.harmless.get(name, ()):
                raise InvalidRequest(f"`{name}` is not supported by this server{instead}.", param=name)

    def sampling(self, max_tokens: int | None, logprobs: int | None = None) -> SamplingParams:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("`stream_options` is only allowed when `stream` is true.", param="stream_options")
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            typical_p=1.0 if self.typical_p is None else self.typical_p,
            xtc_probability=self.xtc_probability or 0.0,
            xtc_threshold=0.1 if self.xtc_threshold is None else self.xtc_threshold,
            dry=self._dry(),
            mirostat=self._mirostat(),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=self.seed,
            max_tokens=max_tokens,
            stop=self._stop_strings(),
            ignore_eos=bool(self.ignore_eos),
            logit_bias=self._biases(),
            logprobs=logprobs,
        )

    def _dry(self) -> DryParams | None:
        if not self.dry_multiplier or self.dry_penalty_last_n == 0:
            return None
        breakers = self.dry_sequence_breakers
        if breakers is not None and len(breakers) > MAX_BREAKERS:
            raise InvalidRequest(
                f"`dry_sequence_breakers` takes at most {MAX_BREAKERS} texts.", param="dry_sequence_breakers"
            )
        for text in breakers or ():
            if not 0 < len(text.encode("utf-8", errors="replace")) <= MAX_BREAKER_BYTES:
                raise InvalidRequest(
                    f"`dry_sequence_breakers` has texts of 1 to {MAX_BREAKER_BYTES} bytes; {text[:60]!r} is none.",
                    param="dry_sequence_breakers",
                )
        given: dict[str, Any] = {
            "base": self.dry_base,
            "allowed_length": self.dry_allowed_length,
            "penalty_last_n": self.dry_penalty_last_n,
            "sequence_breakers": None if breakers is None else tuple(breakers),
        }
        return DryParams(
            multiplier=self.dry_multiplier, **{name: value for name, value in given.items() if value is not None}
        )

    def _mirostat(self) -> MirostatParams | None:
        if not self.mirostat_mode:
            return None
        given: dict[str, Any] = {"tau": self.mirostat_tau, "eta": self.mirostat_eta}
        return MirostatParams(
            mode=self.mirostat_mode, **{name: value for name, value in given.items() if value is not None}
        )

    def _stop_strings(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(f"`stop` takes at most {MAX_STOP_STRINGS} strings.", param="stop")
        if any(not 0 < len(text) <= MAX_STOP_LENGTH for text in stop):
            raise InvalidRequest(f"The strings of `stop` have 1 to {MAX_STOP_LENGTH} characters.", param="stop")
        return tuple(stop)

    def _biases(self) -> dict[int, float]:
        given = self.logit_bias or {}
        if len(given) > MAX_BIASES:
            raise InvalidRequest(f"`logit_bias` takes at most {MAX_BIASES} tokens.", param="logit_bias")
        for token, bias in given.items():
            if not -100 <= bias <= 100:
                raise InvalidRequest(f"`logit_bias` is from -100 to 100, not {bias}.", param="logit_bias")
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise InvalidRequest(f"`logit_bias` has token ids as keys; {token[:20]!r} is none.", param="logit_bias")
        return {int(token): bias for token, bias in given.items()}
