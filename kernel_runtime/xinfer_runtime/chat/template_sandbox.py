"""Where chat templates run: Jinja's sandbox, and bounds on how long one runs and how much it makes.

Jinja's sandbox keeps a template from Python's internals. It does not keep it from looping for hours, nor from making
gigabytes with one multiplication, so every loop and every operation that makes its operands larger is looked at here.
"""

import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SECONDS = 5.0
MAX_MADE = 16 << 20
"""Characters or items that one operation may make."""
_MAX_BITS = 4096
"""Of the whole numbers that a template may multiply or divide: the time that takes grows with the square."""
_MAX_NUMBER = 1 << 20
"""The largest width or count that a template may pass to what makes something of that size."""
_SIZED_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
_SIZED_FILTERS = frozenset({"batch", "center", "indent", "slice", "wordwrap"})
# A width or precision in a format, such as "%99999d" or "{:>99999}", or one that an argument gives: "%*d", "{:{}}".
_WIDE = re.compile(r"\d{5,}|%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """An environment for one template. `start_clock` before each rendering; over a bound it raises `SecurityError`."""

    intercepted_binops = frozenset({"*", "**", "/", "//", "+", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], undefined=jinja2.Undefined
        )
        # Makes texts of any length, of which no template has need.
        del self.globals["lipsum"]
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}
        self._deadline = 0.0

    def start_clock(self) -> None:
        self._deadline = time.monotonic() + MAX_SECONDS

    def look_at_clock(self) -> None:
        if time.monotonic() > self._deadline:
            raise SecurityError(f"the template ran for more than {MAX_SECONDS:g} s")

    def concatenate(self, *values: Any) -> str:
        """What `~` does."""
        texts = list(map(str, values))
        _refuse_above(sum(map(len, texts)))
        return "".join(texts)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed: nodes.Template = _Guarding().visit(super()._parse(source, name, filename))
        return parsed

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.look_at_clock()
        subject, method = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(subject, str):
            if method in _SIZED_METHODS:
                _check_numbers((*args, *kwargs.values()))
            _check_growth(method, subject, args)
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator != "+" and any(isinstance(n, int) and n.bit_length() > _MAX_BITS for n in (left, right)):
            raise SecurityError(f"the template calculates with numbers of more than {_MAX_BITS} bits")
        if operator == "**" and not (abs(left) < 1 << 32 and abs(right) <= 64):
            raise SecurityError("the template raises numbers to large powers")
        if operator == "*":
            for sized, factor in ((left, right), (right, left)):
                if isinstance(sized, str | list | tuple):
                    _refuse_above(len(sized) * factor)
        if operator == "+" and isinstance(left, str | list | tuple):
            _refuse_above(len(left) + len(right))
        if operator == "%" and isinstance(left, str):
            _check_growth("format", left, ())
        return super().call_binop(context, operator, left, right)


class _Guarding(NodeTransformer):
    """Has each turn of a loop look at the clock, and `~` keep to the bounds."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("look_at_clock", [], node.lineno), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _call("concatenate", node.nodes, node.lineno)


def _call(method: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method, lineno=line), arguments, [], None, None, lineno=line)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at its arguments first; Jinja's own arguments may come before the template's."""

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        first = 1 if hasattr(function, "jinja_pass_arg") else 0
        subject, *rest = args[first:]
        rest += kwargs.values()
        if name in _SIZED_FILTERS:
            _check_numbers(rest)
        if name == "join" and not isinstance(subject, str):
            subject = list(subject)
            _check_growth(name, next((each for each in rest if isinstance(each, str)), ""), (subject,))
            args = (*args[:first], subject, *args[first + 1 :])
        elif isinstance(subject, str):
            _check_growth(name, subject, rest)
        return function(*args, **kwargs)

    return bounded


def _check_numbers(values: Sequence[Any]) -> None:
    if any(isinstance(value, int | float) and abs(value) > _MAX_NUMBER for value in values):
        raise SecurityError(f"the template makes something of a size above {_MAX_NUMBER}")


def _check_growth(operation: str, text: str, args: Sequence[Any]) -> None:
    """Refuse an operation on `text`, a method or a filter, that would make too much of it."""
    if operation in ("format", "format_map") and _WIDE.search(text):
        raise SecurityError("the template formats something to a large width")
    if operation == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        _refuse_above(len(text) + text.count(args[0]) * len(args[1]))
    if operation == "join" and args and isinstance(args[0], list | tuple):
        _refuse_above(sum(len(each) if isinstance(each, str) else 1 for each in args[0]) + len(text) * len(args[0]))
    if operation == "indent":
        widths = [each for each in args if isinstance(each, int)]
        _refuse_above(len(text) + text.count("\n") * max(widths, default=4))


def _refuse_above(made: int) -> None:
    if made > MAX_MADE:
        raise SecurityError(f"the template makes something of more than {MAX_MADE} characters or items")
