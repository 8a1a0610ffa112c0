"""One request from token to text: sampling state, detokenisation, stop strings, tool calls, the end, and usage.

No I/O and no llama.cpp objects: the engine gives it tokens and sends what it returns.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xinfer_runtime.chat.output_parser import Output, OutputForm, OutputParser, output_form
from xinfer_runtime.chat.tool_calls import HERMES
from xinfer_runtime.chat.tool_formats import UNKNOWN, json_format
from xinfer_runtime.engines.llama_cpp.constraint import OutputConstraint
from xinfer_runtime.engines.llama_cpp.constraint_compiler import ConstraintCompiler
from xinfer_runtime.engines.llama_cpp.constraint_grammar import PARAM
from xinfer_runtime.engines.llama_cpp.detokenize import Detokenizer
from xinfer_runtime.engines.llama_cpp.image_rows import is_token
from xinfer_runtime.engines.llama_cpp.sampler import Sampler
from xinfer_runtime.engines.llama_cpp.sequence_breakers import SequenceBreakers
from xinfer_runtime.engines.llama_cpp.stop import StopMatcher
from xinfer_runtime.engines.llama_cpp.thought_budget import ThoughtBudget, thought_marks
from xinfer_runtime.errors import ErrorInfo, InvalidRequest
from xinfer_runtime.messages import Delta, FinishReason, GenerateRequest, TokenLogprob, Usage

_PROMPT_END = 16
"""Tokens at the end of a prompt that may spell a tag that opens thoughts."""


@dataclass(frozen=True)
class TokenFacts:
    """What a generation has to know of the vocabulary and the context."""

    piece: Callable[[int], bytes]
    end_of_generation: frozenset[int]
    context_length: int
    constraints: ConstraintCompiler | None = None
    breakers: SequenceBreakers | None = None
    tokenize: Callable[[str], Sequence[int]] | None = None
    """The tokens of a text, control tokens included."""
    template: str = ""
    """The chat template's source, which shows how the model writes tool calls and thoughts."""
    takes_tools: bool = True
    """Whether the template knows of tools; else they are described to the model, and its calls kept to JSON."""


class Generation:
    """The state of one request after its prompt became `prompt`, ids of tokens and rows (fewer than the context holds).

    Raises InvalidRequest for a constraint that cannot be compiled.
    """

    def __init__(self, request: GenerateRequest, prompt: Sequence[int], facts: TokenFacts) -> None:
        sampling = request.sampling
        self.request_id = request.id
        self.prompt_tokens = len(prompt)
        room = facts.context_length - len(prompt)
        prompt = list(filter(is_token, prompt))  # What stands for images is nothing that anybody could say again.
        self.completion_tokens = 0
        self._reasoning_tokens = 0
        self._answering = False
        self._told = 0
        self.finish_reason: FinishReason | None = None
        seed = sampling.seed if sampling.seed is not None else secrets.randbits(64)
        form = _form(request, prompt, facts)
        constraint = _constraint(request, facts, form)
        breakers = facts.breakers.of(sampling.dry.sequence_breakers) if sampling.dry and facts.breakers else None
        thoughts = _thoughts(request, facts, form)
        mu = request.resume_mu
        self.sampler = Sampler(sampling, seed, prompt, constraint, breakers=breakers, mu=mu, thoughts=thoughts)
        self.begun = False
        """Whether it was told how long the prompt is."""
        self._limit = room if sampling.max_tokens is None else min(sampling.max_tokens, room)
        self._facts = facts
        # A constrained output ends where its grammar does, whoever wishes to go on.
        self._ends = frozenset() if sampling.ignore_eos and constraint is None else facts.end_of_generation
        self._constraint = constraint
        self._detokenizer = Detokenizer()
        self._stop = StopMatcher(sampling.stop)
        self._parser = _parser(request, form)
        self._one_call = request.one_call
        self._untold: list[tuple[int, tuple[TokenLogprob, ...]]] = []
        self._error: ErrorInfo | None = None
        if self._limit <= 0:
            self.finish_reason = FinishReason.LENGTH

    @property
    def room(self) -> int:
        """Tokens that may still be generated."""
        return self._limit - self.completion_tokens

    def replay(self, tokens: Sequence[int]) -> None:
        """Take over a request whose `tokens` another replica already sent; what they said is not said again."""
        for token in tokens:
            if self.finish_reason is not None:
                return
            self.accept(token)

    def accept(self, token: int) -> Delta:
        """A token was generated. Returns what to send; sets `finish_reason` when it was the last."""
        self.take(token)
        return self.tell()

    def take(self, token: int) -> None:
        """A token was generated: all that the next one depends on. `tell` does the rest, when there is time for it.

        Sets `finish_reason` when it was the last; only stop strings are found later.
        """
        if self._constraint is not None and self._constraint.failure is not None:
            # The token was drawn without the constraint, so it is not part of the output.
            self._error = self._constraint.failure.info
            self.finish_reason = FinishReason.ABORT
            return
        self.completion_tokens += 1
        self._untold.append((token, self._logprobs(token) if self.sampler.likelihood is not None else ()))
        self.sampler.accept(token)
        if token in self._ends or (self._constraint is not None and self._constraint.complete):
            self.finish_reason = FinishReason.STOP
        elif self.completion_tokens >= self._limit:
            self.finish_reason = FinishReason.LENGTH

    def begin(self) -> Delta:
        """The prompt is about to be computed."""
        self.begun = True
        return Delta(id=self.request_id, prompt_tokens=self.prompt_tokens)

    def tell(self) -> Delta:
        """What to send for the tokens taken since the last call; sets `finish_reason` when a stop string came."""
        if self._error is not None:
            return Delta(id=self.request_id, error=self._error)
        text = ""
        told: list[int] = []
        logprobs: list[TokenLogprob] = []
        for token, judged in self._untold:
            told.append(token)
            logprobs += judged
            if token not in self._ends:
                text += self._stop.push(self._detokenizer.push(self._facts.piece(token)))
            if self._stop.stopped:
                self.finish_reason = FinishReason.STOP
                self.completion_tokens -= len(self._untold) - len(told)
                break
        self._untold.clear()
        return self._delta(text, tuple(told), tuple(logprobs))

    def end(self) -> Delta:
        """The delta of a request that needs no token: nothing was asked for, or all of it was sent before."""
        return self._delta("", ())

    def _logprobs(self, token: int) -> tuple[TokenLogprob, ...]:
        """What the model thought of the token, which was just drawn. None for a replayed one, which nobody drew."""
        likelihood = self.sampler.likelihood
        if likelihood is None:
            return ()
        piece = self._facts.piece
        return (TokenLogprob(piece(token), likelihood.logprob, tuple((piece(t), p) for t, p in likelihood.top)),)

    def _delta(self, text: str, token_ids: tuple[int, ...], logprobs: tuple[TokenLogprob, ...] = ()) -> Delta:
        if self.finish_reason is not None and not self._stop.stopped:
            text += self._stop.push(self._detokenizer.finish())
            text += self._stop.finish()
        output = Output(text)
        if self._parser is not None:
            output = self._parsed(text)
        self._count_thoughts(output, len(token_ids))
        last = self.finish_reason is not None
        first, self.begun = not self.begun, True
        return Delta(
            id=self.request_id,
            text=output.text,
            token_ids=token_ids,
            finish_reason=self.finish_reason,
            usage=self._usage() if last else None,
            tool_calls=output.calls,
            logprobs=logprobs,
            reasoning=output.reasoning,
            mirostat_mu=self.sampler.mirostat.mu if self.sampler.mirostat is not None else None,
            stop_string=self._stop.found,
            prompt_tokens=self.prompt_tokens if first else 0,
        )

    def _count_thoughts(self, output: Output, tokens: int) -> None:
        """Thoughts have all tokens up to their last one, the marks before them included."""
        self._answering |= bool(output.text or output.calls)
        self._told += tokens
        if output.reasoning and not self._answering:
            self._reasoning_tokens = self._told

    def _usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens, reasoning_tokens=self._reasoning_tokens)

    def _parsed(self, text: str) -> Output:
        """What `text` means; sets the finish reason of an output that calls tools."""
        assert self._parser is not None
        output = self._parser.push(text)
        if self.finish_reason is not None:
            output += self._parser.finish()
        if not self._parser.calls:
            return output
        if self._one_call and output.calls:
            self.finish_reason = FinishReason.TOOL_CALLS
            return Output(output.text, output.reasoning, output.calls[:1])
        if self.finish_reason is FinishReason.STOP:
            self.finish_reason = FinishReason.TOOL_CALLS
        return output


def _form(request: GenerateRequest, prompt: Sequence[int], facts: TokenFacts) -> OutputForm:
    """How the output marks thoughts and calls."""
    prompt_end = b"".join(map(facts.piece, prompt[-_PROMPT_END:])).decode("utf-8", errors="ignore")
    if request.constraint is not None:
        # A constraint lets calls be made in Hermes' format alone, whatever the model's own is.
        return output_form(facts.template, prompt_end, HERMES)
    form = output_form(facts.template, prompt_end)
    if not facts.takes_tools:
        return replace(form, format=UNKNOWN)
    return replace(form, format=json_format(form.format)) if _strict(request) else form


def _thoughts(request: GenerateRequest, facts: TokenFacts, form: OutputForm) -> ThoughtBudget | None:
    """What bounds the thoughts. A constraint of the whole output leaves no room for any."""
    marks = thought_marks(form)
    if request.thinking_budget is None or request.constraint is not None or marks is None or facts.tokenize is None:
        return None
    ending = facts.tokenize(marks.ending)
    return ThoughtBudget(marks, request.thinking_budget, ending, facts.piece, inside=form.inside)


def _parser(request: GenerateRequest, form: OutputForm) -> OutputParser | None:
    """What reads the output. None for text that has no structure, or the one that its caller gave it."""
    if not request.parse_tool_calls and (request.constraint is not None or request.messages is None):
        return None
    return OutputParser(form, tools=request.parse_tool_calls)


def _constraint(request: GenerateRequest, facts: TokenFacts, form: OutputForm) -> OutputConstraint | None:
    if request.constraint is None:
        return _call_constraint(request, facts, form)
    if facts.constraints is None:
        raise InvalidRequest("This engine cannot constrain its output", param=PARAM)
    return facts.constraints.compile(request.constraint, request.tools if request.parse_tool_calls else ())


def _call_constraint(request: GenerateRequest, facts: TokenFacts, form: OutputForm) -> OutputConstraint | None:
    """What keeps calls to the schemas of strict tools, and of those that were only described to the model."""
    if _strict(request):
        if facts.constraints is None:
            raise InvalidRequest("This engine cannot keep calls to the schemas of strict functions", param=PARAM)
        return facts.constraints.compile_calls(request.tools, form)
    if facts.takes_tools or facts.constraints is None or not (request.parse_tool_calls and request.tools):
        return None
    # The model never learned to call anything, so what a call must look like is enforced, though nobody asked for it.
    tools = [{**tool, "function": {**tool["function"], "strict": True}} for tool in request.tools]
    try:
        return facts.constraints.compile_calls(tools, form)
    except InvalidRequest:
        return None


def _strict(request: GenerateRequest) -> bool:
    """Whether calls that the model may make are to be kept to a function's parameters."""
    return request.parse_tool_calls and any(tool["function"].get("strict") for tool in request.tools)
