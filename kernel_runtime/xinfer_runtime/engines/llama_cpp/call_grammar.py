"""The grammar of an output in which the model may call tools when it likes: text, then perhaps calls, kept to schemas.

The text ends where a call is opened, for it cannot hold the mark that opens calls in the model's family; from there on
only a call can come. Thoughts that the model writes before its answer are free.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from xinfer_runtime.chat.argument_schema import arguments_schema
from xinfer_runtime.chat.call_spelling import CallSpelling
from xinfer_runtime.chat.output_parser import OutputForm
from xinfer_runtime.chat.tool_formats import json_format
from xinfer_runtime.engines.llama_cpp.constraint_grammar import OPTIONS, check_schema, schema_grammar

Tools = Sequence[dict[str, Any]]

_ANYTHING = "/(?s:.*)/"
_HARMONY_MARKS = r"<\|(start|channel|message|end)\|>"


def calls_or_text(tools: Tools, form: OutputForm) -> str:
    """The grammar, as llguidance's JSON text, of an output of the form with text, or calls of `tools` at its end.

    Arguments conform to `parameters` where the function says `strict`, and are any JSON object elsewhere. Raises
    InvalidRequest for parameters that are beyond the limits of schemas.
    """
    arguments = [{"name": f"arguments_{i}", **_arguments(tool["function"])} for i, tool in enumerate(tools)]
    names = [str(tool["function"].get("name", "")) for tool in tools]
    rules = _harmony(names) if form.harmony else _marked(names, form)
    return json.dumps({"grammars": [{"lark_grammar": OPTIONS + "\n".join(rules)}, *arguments]})


def _arguments(function: dict[str, Any]) -> dict[str, Any]:
    if not function.get("strict"):
        return schema_grammar({"type": "object"})
    parameters = function.get("parameters")
    check_schema(parameters if isinstance(parameters, dict) else {})
    return schema_grammar(arguments_schema(parameters))


def _marked(names: Sequence[str], form: OutputForm) -> list[str]:
    """Families that open calls with a mark, or write nothing but a JSON object."""
    format = json_format(form.format)
    opening = _expression(format.opening)
    # A block without a mark begins like this.
    brace = [r"\s*\{(?s:.*)"] if format.bare else []
    block = " | ".join(f"block_{n}" for n in range(len(format.spellings)))
    rules = [f"block: {block}"]
    for n, spelling in enumerate(format.spellings):
        rules += _block(f"block_{n}", names, spelling)
    if format.bare:
        rules += [r"brace[lazy]: /\s*\{/", f"bare: {_calls(names, format.spellings[0], opened='{')}"]

    def answer(rule: str, never: Sequence[str]) -> list[str]:
        bare = " | brace bare" if format.bare else ""
        return [
            f"{rule}: {rule.upper()}_TEXT | {rule}_opened block{bare}",
            f"{rule.upper()}_TEXT: {_ANYTHING}{_without([f'(?s:.*){opening}(?s:.*)', *never])}",
            f"{rule}_opened[lazy]: {rule.upper()}_OPENED",
            f"{rule.upper()}_OPENED: /(?s:.*){opening}/{_without(never)}",
        ]

    if form.thoughts is None:
        return ["start: answer", *answer("answer", brace), *rules]
    closing = _expression(form.thoughts.closing)
    rules += answer("answer", brace)
    if form.inside:
        return ["start: thoughts answer", f"thoughts[lazy]: /(?s:.*){closing}/", *rules]
    begun = rf"\s*{_expression(form.thoughts.opening)}(?s:.*)"
    return [
        "start: thoughts answer | unthought",
        f"thoughts[lazy]: /{begun}{closing}/",
        *answer("unthought", [begun, *brace]),
        *rules,
    ]


def _block(rule: str, names: Sequence[str], spelling: CallSpelling) -> list[str]:
    begin, between, end = map(json.dumps, (spelling.begin, spelling.between, spelling.end))
    return [f"{rule}: {begin} {rule}_call ({between} {rule}_call)* {end}", f"{rule}_call: {_calls(names, spelling)}"]


def _calls(names: Sequence[str], spelling: CallSpelling, opened: str = "") -> str:
    """A call of any of the functions, of which `opened` was written before."""
    options = []
    for i, name in enumerate(names):
        # Between JSON's quotes, or without them where a family has none.
        spelled = json.dumps(name, ensure_ascii=False)[1:-1]
        pieces = [piece.replace("%s", spelled) for piece in spelling.before.removeprefix(opened).split("#")]
        before = " /[0-9]{1,3}/ ".join(map(json.dumps, pieces))
        options.append(f"{before} @arguments_{i} {json.dumps(spelling.after)}")
    return " | ".join(options)


def _harmony(names: Sequence[str]) -> list[str]:
    """gpt-oss: thoughts and remarks as messages of their own, then an answer or a call."""
    calls = []
    for i, name in enumerate(names):
        recipient = f" to=functions.{name}"
        headers = (f"<|channel|>commentary{recipient} <|constrain|>", f"{recipient}<|channel|>commentary <|constrain|>")
        spelled = " | ".join(json.dumps(f"{header}json<|message|>") for header in headers)
        calls.append(f"({spelled}) @arguments_{i}")
    ended = _expression("<|end|>")
    return [
        'start: (remark "<|start|>assistant")* (answer | call)',
        'remark: ("<|channel|>analysis<|message|>" | "<|channel|>commentary<|message|>") remark_text',
        "remark_text[lazy]: REMARK",
        f"REMARK: /(?s:.*){ended}/{_without([rf'(?s:.*){_HARMONY_MARKS}(?s:.*){ended}'])}",
        'answer: "<|channel|>final<|message|>" ANSWER',
        f"ANSWER: {_ANYTHING}{_without([f'(?s:.*){_HARMONY_MARKS}(?s:.*)'])}",
        f"call: {' | '.join(calls)}",
    ]


def _without(expressions: Sequence[str]) -> str:
    return "".join(f" & ~/{expression}/" for expression in expressions)


def _expression(text: str) -> str:
    return re.escape(text).replace("/", r"\/")
