"""Conversations with tools: a call when a tool fits, an answer from its result, a plain answer when none is needed."""

import json
import random
from collections.abc import Callable, Collection
from typing import Any

from demo_model.corpus.conversation import Conversation, Message
from demo_model.corpus.exchange import Exchange, HeldOut, bucket, normalised
from demo_model.corpus.numbers import operands_held_out
from demo_model.corpus.tool_families import FAMILIES, Family
from demo_model.corpus.tool_values import Values
from demo_model.corpus.words import WORDS

Schema = dict[str, Any]

NO_TOOL = "I am sorry, I have no tool for that."
_NEEDS_A_TOOL = (
    "get_weather",
    "get_time",
    "convert_currency",
    "get_stock_price",
    "get_date",
    "get_order_status",
    "set_timer",
)
_ODD_NAMES = ("value", "input", "arg", "name", "data", "item", "key", "param", "field", "which")
_OPENERS = ("Hi! ", "Hello, ", "Please tell me: ", "Hey, ", "Quick question: ", "Can you help me? ", "Now, ", "OK, ")


class OfferedTool:
    """One tool of a family under the names that this conversation uses."""

    def __init__(self, rng: random.Random, family: Family) -> None:
        self.family = family
        self.made_up = rng.random() < 0.12
        self.name = f"{rng.choice(WORDS)}_{rng.choice(WORDS)}" if self.made_up else _function_name(rng, family)
        self.parameter_names = {parameter.field: rng.choice(parameter.names) for parameter in family.parameters}
        if len(family.parameters) == 1 and rng.random() < 0.2:
            # Two odd names could not be told apart; one alone teaches that names come from the schema.
            self.parameter_names = {family.parameters[0].field: rng.choice((*_ODD_NAMES, *WORDS))}
        self.schema = _schema(rng, self)

    def arguments(self, values: Values) -> dict[str, object]:
        """The call's arguments, in the order in which the schema lists the properties."""
        fields = {name: field for field, name in self.parameter_names.items()}
        properties = self.schema["function"].get("parameters", {}).get("properties", {})
        return {name: values[fields[name]] for name in properties if name in fields}


def _function_name(rng: random.Random, family: Family) -> str:
    name = rng.choice(family.names)
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(("my_", "do_", "call_", "api_")) + name
    if kind < 0.2:
        return name + rng.choice(("_tool", "_v2", "_api", "_now"))
    return name


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return value


def _schema(rng: random.Random, tool: OfferedTool) -> Schema:
    properties: dict[str, Any] = {}
    for parameter in tool.family.parameters:
        name = tool.parameter_names[parameter.field]
        entry: dict[str, Any] = {"type": parameter.type}
        if parameter.type == "integer" and rng.random() < 0.3:
            entry["type"] = "number"
        description = rng.choice(parameter.descriptions)
        if description:
            entry["description"] = description
        if parameter.choices and rng.random() < 0.6:
            entry["enum"] = list(parameter.choices)
        if rng.random() < 0.1:
            entry["title"] = name.replace("_", " ").title()
        properties[name] = entry
    if tool.family.names[0] == "get_weather" and len(properties) == 1 and rng.random() < 0.25:
        unit = {"type": "string", "enum": rng.choice((["celsius", "fahrenheit"], ["C", "F"]))}
        properties[rng.choice(("unit", "unit", "units"))] = unit
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if properties and rng.random() < 0.8:
        parameters["required"] = list(tool.parameter_names.values())
    if rng.random() < 0.15:
        parameters["additionalProperties"] = False
    function: dict[str, Any] = {"name": tool.name}
    description = rng.choice(tool.family.descriptions)
    if tool.made_up:
        description = tool.family.descriptions[0]  # nothing else tells what the tool does
    if description:
        function["description"] = description + rng.choice(("", "", "."))
    if tool.family.parameters or rng.random() < 0.7:
        function["parameters"] = parameters
    if rng.random() < 0.05:
        function["strict"] = True
    schema: Schema = {"type": "function", "function": function}
    if rng.random() < 0.45:
        ordered: Schema = _sorted(schema)
        return ordered
    return schema


def _offer(rng: random.Random, target: Family, most: int = 3) -> tuple[OfferedTool, list[OfferedTool]]:
    others = [family for family in FAMILIES if not set(family.names) & set(target.names)]
    extra = rng.choices(range(most + 1), (5, 3, 1, 0.3)[: most + 1])[0]
    tool = OfferedTool(rng, target)
    offered = [tool, *(OfferedTool(rng, family) for family in rng.sample(others, extra))]
    names = [other.name for other in offered]
    if len(set(names)) < len(names):
        return _offer(rng, target, most)
    rng.shuffle(offered)
    return tool, offered


def _question(rng: random.Random, family: Family, values: Values) -> tuple[str, HeldOut]:
    core = rng.choice((*family.questions, *family.held_questions))
    opener = rng.choice(_OPENERS) if rng.random() < 0.15 and core[0] != "{" and core[0].isascii() else ""
    body = core.format(**values)
    if opener == "" or opener.rstrip()[-1] in "!?.:":
        body = body[:1].upper() + body[1:]
    question = opener + body
    if core in family.held_questions:
        return question, "phrasing"
    if family.names[0] == "add" and operands_held_out(int(str(values["a"])), int(str(values["b"]))):
        return question, "pair"
    return question, "pair" if bucket(normalised(question), 14) == 0 else ""


def _call(name: str, arguments: dict[str, object]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}


def _result_text(rng: random.Random, result: object) -> str:
    if isinstance(result, str):
        return result
    separators = (",", ":") if rng.random() < 0.2 else None
    return json.dumps(result, ensure_ascii=False, separators=separators)


def _round(rng: random.Random, tool: OfferedTool) -> tuple[list[Message], list[Message], HeldOut]:
    """One question: the messages up to the call, and those after it."""
    values = tool.family.values(rng)
    question, held = _question(rng, tool.family, values)
    result, answer = tool.family.result(rng, values)
    text = _result_text(rng, result)
    if rng.random() < 0.05:
        reason = rng.choice(("not found", "timeout", "unknown city", "no connection", "access denied", "invalid input"))
        text, answer = json.dumps({"error": reason}), f"Sorry, the tool failed: {reason}."
    call = _call(tool.name, tool.arguments(values))
    before: list[Message] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    after: list[Message] = [{"role": "tool", "content": text}, {"role": "assistant", "content": answer}]
    return before, after, held


def _two_cities(rng: random.Random, tool: OfferedTool) -> tuple[list[Message], list[Message]]:
    rounds = []
    for _ in range(2):
        values = tool.family.values(rng)
        result, answer = tool.family.result(rng, values)
        rounds.append((values, _result_text(rng, result), answer))
    first, second = (values["city"] for values, _, _ in rounds)
    core = rng.choice(("What is the weather in {x} and {y}?", "What is the weather in {x} and in {y}?",
                       "Tell me the weather in {x} and {y}.", "How is the weather in {x} and in {y}?"))  # fmt: skip
    calls = [_call(tool.name, tool.arguments(values)) for values, _, _ in rounds]
    before: list[Message] = [{"role": "user", "content": core.format(x=first, y=second)},
              {"role": "assistant", "content": "", "tool_calls": calls}]  # fmt: skip
    after: list[Message] = [{"role": "tool", "content": text} for _, text, _ in rounds]
    after.append({"role": "assistant", "content": " ".join(answer for _, _, answer in rounds)})
    return before, after


def call_conversation(rng: random.Random, held_out: bool = False) -> Conversation:
    """One or two rounds of question, call, result and answer; at times it ends with the call itself.

    With `held_out`, one round whose question is held out of training; otherwise none is.
    """
    while True:
        family = rng.choices(
            FAMILIES, [3 if family.names[0] in {"get_weather", "get_time", "add"} else 1 for family in FAMILIES]
        )[0]
        tool, offered = _offer(rng, family)
        messages: list[Message] = []
        held: HeldOut = ""
        category = "tool_results"
        if not held_out and family.names[0] == "get_weather" and rng.random() < 0.12:
            before, after = _two_cities(rng, tool)
            messages += before + after
        else:
            for turn in range(1 if held_out or rng.random() < 0.6 else 2):
                chosen = tool if turn == 0 else rng.choice(offered)
                before, after, kind = _round(rng, chosen)
                held = kind or held
                messages += before + after
        if rng.random() < (0.6 if held_out else 0.1):
            del messages[2:]
            category = "tool_calls"
        if bool(held) == held_out:
            break
    answers = sum(message["role"] == "assistant" for message in messages)
    return Conversation(category, messages, [tool.schema for tool in offered], [4] * answers, held)


def no_call_conversation(rng: random.Random, exchange: Callable[[], Exchange]) -> Conversation:
    """Tools are there, but the question needs none of them, or needs one that is not there."""
    target = rng.choice(FAMILIES)
    _, offered = _offer(rng, target, most=2)
    if rng.random() < 0.25:
        found = missing_tool_exchange(rng, {tool.family.names[0] for tool in offered})
        while found.held_out:
            found = missing_tool_exchange(rng, {tool.family.names[0] for tool in offered})
    else:
        found = exchange()
    messages = [{"role": "user", "content": found.question}, {"role": "assistant", "content": found.answer}]
    return Conversation("no_tool", messages, [tool.schema for tool in offered], [4], found.held_out)


def missing_tool_exchange(rng: random.Random, offered: Collection[str] = ()) -> Exchange:
    """A question that only a tool could answer, asked without that tool."""
    family = rng.choice([f for f in FAMILIES if f.names[0] in _NEEDS_A_TOOL and f.names[0] not in offered])
    question, held = _question(rng, family, family.values(rng))
    return Exchange("unknown", question, NO_TOOL, held)
