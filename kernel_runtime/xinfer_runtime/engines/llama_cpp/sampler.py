"""From logits to tokens: greedy rows in one vectorised step, sampled rows by inverse transform with a resumable seed.

The order is llama.cpp's default: bias, penalties, DRY, constraint, top-k, typical, top-p, min-p, XTC, temperature.
The cuts act on the model's own distribution, so what counts as improbable does not depend on the temperature; that is
what the settings published with GGUF models are tuned for. (OpenAI and vLLM apply temperature first: with temperatures
above 1 they keep more tokens.) Mirostat comes after the temperature, in place of the other cuts.
"""

from collections import Counter, deque
from collections.abc import Sequence
from operator import attrgetter

import llama_cpp  # noqa: F401  (before numpy: with a CUDA build the other order crashes at every model load)
import numpy as np
from numpy.typing import NDArray

from xinfer_runtime.engines.llama_cpp.constraint import OutputConstraint
from xinfer_runtime.engines.llama_cpp.cuts import cut
from xinfer_runtime.engines.llama_cpp.dry import Breakers, Dry
from xinfer_runtime.engines.llama_cpp.logprobs import Likelihood, likelihoods
from xinfer_runtime.engines.llama_cpp.mirostat import Mirostat
from xinfer_runtime.engines.llama_cpp.randomness import uniform
from xinfer_runtime.engines.llama_cpp.ranking import pick
from xinfer_runtime.engines.llama_cpp.thought_budget import ThoughtBudget
from xinfer_runtime.messages import SamplingParams

_COLDEST = 1e-5
"""Below this, f32 overflows and the choice is greedy anyway."""

_CUTS = 0x9D1C_03B5_7F2E_4A61
"""Turns a seed into that of a second series of random numbers, for cuts that are made by chance."""


_PLAIN = attrgetter("plain")


class Sampler:
    """The sampling state of one sequence: what penalties count, and how many draws were made."""

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        prompt: Sequence[int],
        constraint: OutputConstraint | None = None,
        *,
        breakers: Breakers | None = None,
        mu: float | None = None,
        thoughts: ThoughtBudget | None = None,
    ) -> None:
        self.params = params
        self.constraint = constraint
        self._thoughts = thoughts
        self.mirostat = Mirostat(params.mirostat, mu) if params.mirostat is not None else None
        self._dry = Dry(params.dry, breakers or {}, prompt) if params.dry is not None else None
        self.seed = seed
        self.draws = 0
        self._generated: Counter[int] = Counter()
        window = max(params.penalty_window, 0) if params.repetition_penalty != 1.0 else 0
        self._recent: deque[int] = deque(prompt[-window:] if window else (), maxlen=window)
        self._biased = np.fromiter(params.logit_bias, dtype=np.int64) if params.logit_bias else None
        self._bias = np.fromiter(params.logit_bias.values(), dtype=np.float32)
        self.likelihood: Likelihood | None = None
        """What the model itself thought of the token drawn last, where the request asks for it."""
        self._penalizes = bool(window) or params.presence_penalty != 0 or params.frequency_penalty != 0
        touched = self._penalizes or self._biased is not None or self._dry is not None or constraint is not None
        self.plain = self.greedy and not touched and thoughts is None and params.logprobs is None
        """Whether the token is always the one with the largest logit, and nothing else is asked of it."""

    @property
    def greedy(self) -> bool:
        return self.params.temperature <= 0

    def accept(self, token: int) -> None:
        """A token was generated, here or by the replica that this sequence comes from."""
        self.draws += 1
        if self.constraint is not None:
            self.constraint.accept(token)
        if self._thoughts is not None:
            self._thoughts.accept(token)
        if self._penalizes:
            self._generated[token] += 1
            self._recent.append(token)
        if self._dry is not None:
            self._dry.accept(token)

    @property
    def adjusts(self) -> bool:
        """Whether `adjust` does anything."""
        forced = self._thoughts is not None and self._thoughts.spent
        kept = self.constraint is not None or forced
        return self._penalizes or self._biased is not None or self._dry is not None or kept

    def adjust(self, logits: NDArray[np.float32]) -> None:
        """Apply, in place, logit bias, penalties, DRY, the constraint and the budget of thoughts to the logits
        (vocabulary,).
        """
        if self._biased is not None:
            logits[self._biased] += self._bias
        self.penalize(logits)
        if self._dry is not None:
            self._dry.penalize(logits)
        if self.constraint is not None:
            self.constraint.rule_out(logits)
        if self._thoughts is not None:
            self._thoughts.rule_out(logits)

    def penalize(self, logits: NDArray[np.float32]) -> None:
        """Lower, in place, the logits (vocabulary,) of tokens that came before.

        Repetition as in CTRL (Keskar et al., 2019), over the recent tokens; presence and frequency as OpenAI defines
        them.
        """
        if not self._penalizes:
            return
        params = self.params
        if self._recent:
            seen = np.fromiter(set(self._recent), dtype=np.int64)
            values = logits[seen]
            factor = np.float32(params.repetition_penalty)
            logits[seen] = np.where(values > 0, values / factor, values * factor)
        if self._generated and (params.presence_penalty or params.frequency_penalty):
            tokens = np.fromiter(self._generated.keys(), dtype=np.int64)
            counts = np.fromiter(self._generated.values(), dtype=np.float32)
            logits[tokens] -= params.presence_penalty + params.frequency_penalty * counts

    def draw(self, logits: NDArray[np.float32]) -> int:
        """A token from the logits (vocabulary,) after penalties."""
        if self.mirostat is not None:
            return self._draw_by_mirostat(logits, self.mirostat)
        chance = uniform(self.seed ^ _CUTS, self.draws) if self.params.xtc_probability > 0 else 1.0
        tokens, kept = cut(logits, self.params, chance)
        # In place: with a large vocabulary a new array for each operation takes as long as the operation.
        weights = kept - kept.max()
        if self.params.temperature != 1.0:
            weights /= np.float32(max(self.params.temperature, _COLDEST))
        np.exp(weights, out=weights)
        index = pick(weights, uniform(self.seed, self.draws))
        return index if tokens is None else int(tokens[index])

    def _draw_by_mirostat(self, logits: NDArray[np.float32], mirostat: Mirostat) -> int:
        scaled = logits / np.float32(max(self.params.temperature, _COLDEST))
        tokens = mirostat.cut(scaled)
        kept = scaled[tokens]
        index = pick(np.exp(kept - kept.max()), uniform(self.seed, self.draws))
        mirostat.learn(kept, index)
        return int(tokens[index])


def sample(logits: NDArray[np.float32], samplers: Sequence[Sampler]) -> list[int | None]:
    """The next token of each row of logits (rows, vocabulary), which may be changed; None for a row of no numbers.

    Leaves the `likelihood` with each sampler whose request asks for log probabilities.
    """
    if all(map(_PLAIN, samplers)):
        # What a GPU waits for, as a rule: nothing here goes over the sequences one by one.
        best = logits.argmax(axis=1)
        if np.isfinite(logits[np.arange(len(best)), best]).all():
            largest: list[int | None] = best.tolist()
            return largest
    asking = [row for row, sampler in enumerate(samplers) if sampler.params.logprobs is not None]
    unchanged = logits[asking] if asking else None
    for row, sampler in zip(logits, samplers, strict=True):
        if sampler.adjusts:
            sampler.adjust(row)
    best = logits.argmax(axis=1)
    # Not-a-number wins every argmax, so looking at the winner is enough; -inf means that every token is ruled out.
    sound = np.isfinite(logits[np.arange(len(best)), best])
    tokens: list[int | None] = []
    for row, sampler in enumerate(samplers):
        if not sound[row]:
            tokens.append(None)
        elif sampler.greedy:
            tokens.append(int(best[row]))
        else:
            tokens.append(sampler.draw(logits[row]))
    if unchanged is not None:
        _judge(unchanged, asking, tokens, samplers)
    return tokens


def _judge(
    unchanged: NDArray[np.float32], asking: list[int], tokens: list[int | None], samplers: Sequence[Sampler]
) -> None:
    """Leave with the samplers of the rows `asking` what the unchanged logits (asking, vocabulary) say of the tokens."""
    drawn = [(at, token, samplers[row]) for at, row in enumerate(asking) if (token := tokens[row]) is not None]
    if not drawn:
        return
    if len(drawn) < len(asking):
        unchanged = unchanged[[at for at, _, _ in drawn]]
    tops = [sampler.params.logprobs or 0 for _, _, sampler in drawn]
    judged = likelihoods(unchanged, [token for _, token, _ in drawn], tops)
    for (_, _, sampler), likelihood in zip(drawn, judged, strict=True):
        sampler.likelihood = likelihood
