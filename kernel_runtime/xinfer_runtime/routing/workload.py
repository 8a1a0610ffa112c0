"""What a replica still owes, in tokens: an estimate that requests correct as they go on."""

from typing import Final

from xinfer_runtime.messages import Delta, GenerateRequest, ReplicaRequest

_FIRST_GUESS: Final = 128.0
_MEMORY: Final = 0.05
"""The weight of the newest answer in the mean length of answers."""


class AnswerLength:
    """The mean number of tokens in answers of one model, the latest counting most."""

    def __init__(self) -> None:
        self.mean = _FIRST_GUESS

    def expected(self, request: ReplicaRequest) -> float:
        """Tokens that this request will be given, about."""
        if not isinstance(request, GenerateRequest) or request.tokenize is not None or request.detokenize:
            return 0.0
        most = request.sampling.max_tokens
        return self.mean if most is None else min(self.mean, most - len(request.resume))

    def learn(self, tokens: int) -> None:
        self.mean += _MEMORY * (tokens - self.mean)


class Share:
    """One request's part of a `Workload`. It shrinks with the answer, and `end` gives back the rest."""

    def __init__(self, workload: "Workload", prompt: float, answer: float) -> None:
        self._workload = workload
        self._prompt = prompt
        self._answer = answer
        workload.tokens += prompt + answer

    def observe(self, delta: Delta) -> None:
        if not delta.token_ids:
            return
        # The first token says that the prompt is computed. A longer answer than expected goes on owing a little.
        done = self._prompt + min(len(delta.token_ids), max(0.0, self._answer - 1))
        self._answer -= done - self._prompt
        self._prompt = 0.0
        self._workload.tokens -= done

    def end(self) -> None:
        self._workload.tokens -= self._prompt + self._answer
        self._prompt = self._answer = 0.0


class Workload:
    """Tokens that one replica owes this gateway."""

    def __init__(self) -> None:
        self.tokens = 0.0

    def add(self, prompt: float, answer: float) -> Share:
        """A request with `prompt` tokens to compute and about `answer` to generate."""
        return Share(self, max(0.0, prompt), max(0.0, answer))
