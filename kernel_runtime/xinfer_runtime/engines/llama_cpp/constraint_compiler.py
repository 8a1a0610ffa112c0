"""Compiles constraints for one vocabulary, and keeps what it compiled. For one thread, that which prepares requests."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from xinfer_runtime.chat.output_parser import OutputForm
from xinfer_runtime.engines.llama_cpp.call_grammar import calls_or_text
from xinfer_runtime.engines.llama_cpp.constraint import OutputConstraint, reason
from xinfer_runtime.engines.llama_cpp.constraint_grammar import PARAM, grammar_of
from xinfer_runtime.errors import InvalidRequest
from xinfer_runtime.messages import Constraint, ConstraintKind

CACHED_GRAMMARS = 64

_LIMITS = LLParserLimits(
    # About 4 ms of a step at most, and 40 MB: everybody's next token waits for the slowest grammar.
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    verbose_errors=False,
)
_SLICES = [
    *(f"[{characters}]{{1,12}}" for characters in ("a-z", "a-z ", "a-zA-Z", "a-zA-Z ", "a-zA-Z0-9_", "a-zA-Z0-9_ ")),
    r'[^"\\,.;:\x00-\x1F\x7F]{1,12}',
    *LLTokenizer.general_slices(),
]
"""Parts of the vocabulary that are let through as a whole where an expression takes whatever is in them, and walked
token by token elsewhere. Counted classes, `[a-z ]{20,200}`, have a state for every count, so that nothing learnt of one
state helps at the next. Each token is in the first part that it matches; the narrow ones come first. llguidance's own
serve JSON strings.
"""

_EXPRESSIONS = frozenset({ConstraintKind.REGEX, ConstraintKind.GRAMMAR})
"""For these alone: to divide a vocabulary takes as long as to read it."""

_SPECIAL = b"\xff"
"""llguidance takes tokens that begin with this byte, which no text has, for control tokens."""


class ConstraintCompiler:
    """The constraints of one model: its token bytes, how many tokens it has, and which of them end an output.

    The tokenizer is made for the first request that needs one: 0.6 s with 150,000 tokens.
    """

    def __init__(self, piece: Callable[[int], bytes], size: int, end_of_generation: frozenset[int]) -> None:
        self._piece = piece
        self._size = size
        self._ends = sorted(end_of_generation)
        self._tokenizer: LLTokenizer | None = None
        self._sliced: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def compile(self, constraint: Constraint, tools: Sequence[dict[str, Any]] = ()) -> OutputConstraint:
        """The beginning of an output under the constraint, or of calls of the tools.

        Raises InvalidRequest, with the reason, for a constraint that is invalid, not supported or too complex.
        """
        return self._start(
            grammar_of(constraint, tools), f"this {constraint.kind}", sliced=constraint.kind in _EXPRESSIONS
        )

    def compile_calls(self, tools: Sequence[dict[str, Any]], form: OutputForm) -> OutputConstraint:
        """The beginning of a text after which the tools may be called, as an output of that form has them.

        Raises InvalidRequest for tools that cannot be kept to.
        """
        return self._start(calls_or_text(tools, form), "these tools")

    def _start(self, grammar: str, what: str, sliced: bool = False) -> OutputConstraint:
        fresh = partial(LLMatcher, self._tokenizer_for(sliced), grammar, log_level=0, limits=_LIMITS)
        matcher = self._compiled.pop(grammar, None)
        if matcher is None or _exhausted(matcher):
            matcher = fresh()
            if matcher.is_error():
                why = reason(matcher.get_error())
                raise InvalidRequest(f"The output cannot be kept to {what}: {why}", param=PARAM)
        self._compiled[grammar] = matcher
        while len(self._compiled) > CACHED_GRAMMARS:
            self._compiled.popitem(last=False)
        return OutputConstraint(matcher.deep_copy(), fresh)

    def _tokenizer_for(self, sliced: bool) -> LLTokenizer:
        if self._tokenizer is None:
            if not self._ends:
                raise InvalidRequest(
                    "This model has no token that ends an output, so none can be constrained", param=PARAM
                )
            tokens = _Tokens(self._piece, self._size, self._ends)
            self._tokenizer = LLTokenizer(TokenizerWrapper(tokens), eos_token=self._ends)
        if not sliced:
            return self._tokenizer
        if self._sliced is None:
            self._sliced = self._tokenizer.with_slices(_SLICES)
        return self._sliced


def _exhausted(matcher: LLMatcher) -> bool:
    """Whether earlier requests used up what the limits grant this grammar."""
    copy = matcher.deep_copy()
    copy.compute_bitmask()
    return copy.is_error()


class _Tokens:
    """The vocabulary as llguidance asks for it."""

    def __init__(self, piece: Callable[[int], bytes], size: int, ends: Sequence[int]) -> None:
        pieces = [piece(token) for token in range(size)]
        # A lone byte FF is in no text; taken for the mark of a control token it would only confuse.
        self.tokens = [b"" if each.startswith(_SPECIAL) else each for each in pieces]
        for token in ends:
            self.tokens[token] = _SPECIAL + b"<end %d>" % token
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self.special_token_ids = list(ends)
        self._of_byte = {each[0]: token for token, each in reversed(list(enumerate(self.tokens))) if len(each) == 1}

    def __call__(self, text: bytes) -> list[int]:
        """Tokens of a text, for what llguidance asks of them: it only wants to know that they exist."""
        return [self._of_byte[byte] for byte in text if byte in self._of_byte]
