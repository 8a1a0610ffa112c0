"""Questions about the table of facts, and the same facts as JSON answers on request."""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from demo_model.corpus import facts_table as table
from demo_model.corpus.exchange import Exchange, Wording, ask


@dataclass(frozen=True)
class Fact:
    """One fact with the ways to ask for it: `key` and `value` are its JSON form."""

    wording: Wording
    fields: dict[str, str]
    answer: str
    key: str
    value: str | int


_CAPITAL = Wording(
    (
        "what is the capital of {x}?", "what is the capital city of {x}?", "which city is the capital of {x}?",
        "what city is the capital of {x}?", "tell me the capital of {x}.", "name the capital of {x}.",
        "do you know the capital of {x}?", "the capital of {x}?", "can you tell me the capital of {x}?",
        "what's the capital of {x}?", "what is {x}'s capital?", "the capital of {x} is which city?",
        "I need the capital of {x}.", "give me the capital city of {x}.", "capital of {x}?",
        "which city is {x}'s capital?", "I would like to know the capital of {x}.", "for {x}, what is the capital?",
    ),
    ("could you name the capital city of {x}?", "what is the name of the capital of {x}?",
     "which is the capital of {x}?"),
)  # fmt: skip
_COUNTRY = Wording(
    (
        "{x} is the capital of which country?", "which country has the capital {x}?", "{x} is the capital of what?",
        "of which country is {x} the capital?", "what country has {x} as its capital?",
        "which country's capital is {x}?", "tell me which country has the capital {x}.",
        "do you know which country has {x} as its capital?", "{x} is the capital city of which country?",
    ),
    ("can you tell me which country has the capital {x}?", "{x} is the capital city of what country?"),
)  # fmt: skip
_CAPITAL_ZH = Wording(
    (
        "{x}的首都是哪里？", "{x}的首都是什么？", "{x}的首都是哪个城市？", "哪个城市是{x}的首都？",
        "{x}的首都在哪里？",
        "{x}的首都叫什么？", "你知道{x}的首都吗？", "告诉我{x}的首都。", "{x}首都是哪里？", "说出{x}的首都。",
        "{x}的首都是哪座城市？",
        "{x}的首都是哪里呢？", "你知道{x}的首都叫什么吗？",
    ),
    ("你知道{x}的首都是哪里吗？", "哪座城市是{x}的首都？", "告诉我{x}的首都是哪里。"),
    chinese=True,
)  # fmt: skip
_SOUND = Wording(
    (
        "what sound does a {x} make?", "what does a {x} do to make a sound?", "how does a {x} sound?",
        "which sound does a {x} make?", "what noise does a {x} make?", "which noise does a {x} make?",
        "tell me what sound a {x} makes.", "do you know what sound a {x} makes?", "what is the sound of a {x}?",
        "can you tell me what sound a {x} makes?", "name the sound of a {x}.",
    ),
    ("tell me what noise a {x} makes.", "do you know the sound of a {x}?"),
)  # fmt: skip
_LEGS = Wording(
    (
        "how many legs does {ax} have?", "how many legs has {ax}?", "what is the number of legs of {ax}?",
        "tell me how many legs {ax} has.", "do you know how many legs {ax} has?", "count the legs of {ax}.",
        "how many legs are there on {ax}?", "can you tell me how many legs {ax} has?",
        "{ax} has how many legs?", "the number of legs of {ax}?",
    ),
    ("I want to know how many legs {ax} has.", "tell me the number of legs of {ax}."),
)  # fmt: skip
_YOUNG = Wording(
    (
        "what is a baby {x} called?", "what do you call a baby {x}?", "what is a young {x} called?",
        "what is the name for a baby {x}?", "how do you call a young {x}?", "tell me what a baby {x} is called.",
        "do you know what a baby {x} is called?", "what is the word for a young {x}?", "a baby {x} is called what?",
        "what do we call a young {x}?",
    ),
    ("what do we call a baby {x}?", "can you tell me what a young {x} is called?"),
)  # fmt: skip
_ORDER = Wording(
    (
        "which planet is the {x} from the sun?", "what is the {x} planet from the sun?", "what is the {x} planet?",
        "which planet is the {x} one from the sun?", "name the {x} planet from the sun.",
        "tell me the {x} planet from the sun.", "what planet is the {x} from the sun?", "which is the {x} planet?",
        "do you know the {x} planet from the sun?", "the {x} planet from the sun?",
    ),
    ("can you name the {x} planet from the sun?", "what is the name of the {x} planet from the sun?"),
)  # fmt: skip
_PLACE = Wording(
    (
        "which place from the sun does {x} have?", "what number is {x} from the sun?",
        "where is {x} in the order of planets?",
        "counting from the sun, which planet is {x}?", "what place does {x} have from the sun?",
        "tell me the place of {x} from the sun.", "which number from the sun is {x}?",
        "what is the place of {x} from the sun?",
    ),
    ("tell me what number {x} is from the sun.", "counting from the sun, what number is {x}?"),
)  # fmt: skip
_TITLE = Wording(
    (
        "which planet is the {x} planet?", "what is the {x} planet?", "which is the {x} planet?",
        "name the {x} planet.",
        "tell me the {x} planet.", "do you know the {x} planet?", "what planet is called the {x} planet?",
        "which planet is the {x} one?", "the {x} planet is which one?",
    ),
    ("can you tell me the {x} planet?", "what is the name of the {x} planet?"),
)  # fmt: skip
_COLOUR = Wording(
    (
        "what colour is {ax}?", "what color is {ax}?", "which colour is {ax}?", "which color is {ax}?",
        "which colour does {ax} have?", "what is the colour of {ax}?", "what is the color of {ax}?",
        "tell me the colour of {ax}.", "do you know the colour of {ax}?", "what colour does {ax} have?",
        "can you tell me what colour {ax} is?", "name the colour of {ax}.", "{ax} has which colour?",
    ),
    ("can you tell me the colour of {ax}?", "tell me what color {ax} is.", "what color does {ax} have?"),
)  # fmt: skip
_MIX = Wording(
    (
        "what do you get when you mix {x} and {y}?", "what colour do {x} and {y} make?", "mix {x} and {y}.",
        "which colour do you get from {x} and {y}?", "what is {x} mixed with {y}?",
        "what happens when I mix {x} and {y}?",
        "what color do {x} and {y} make?", "which colour do {x} and {y} make?",
        "if I mix {x} with {y}, what do I get?",
        "{x} and {y} together make which colour?", "what colour do I get when I mix {x} with {y}?",
    ),
    ("what colour do you get when you mix {x} and {y}?", "which color do {x} and {y} make together?"),
)  # fmt: skip
_COLOUR_ZH = Wording(
    (
        "{x}是什么颜色？", "{x}是什么颜色的？", "{x}的颜色是什么？", "{x}是哪种颜色？", "告诉我{x}的颜色。",
        "你知道{x}是什么颜色吗？",
        "{x}有什么颜色？", "什么颜色是{x}的颜色？", "{x}是什么颜色呢？", "说出{x}的颜色。",
    ),
    ("告诉我{x}是什么颜色。", "你知道{x}的颜色吗？"),
    chinese=True,
)  # fmt: skip


def _country_name(country: str) -> str:
    return f"the {country}" if country in {"Netherlands", "Philippines"} else country


def _capital(rng: random.Random) -> Fact:
    country, city = rng.choice(list(table.CAPITALS.items()))
    name = _country_name(country)
    return Fact(_CAPITAL, {"x": name}, f"The capital of {name} is {city}.", "capital", city)


def _country(rng: random.Random) -> Fact:
    country, city = rng.choice(list(table.CAPITALS.items()))
    name = _country_name(country)
    return Fact(_COUNTRY, {"x": city}, f"{city} is the capital of {name}.", "country", country)


def _capital_zh(rng: random.Random) -> Fact:
    country, city = rng.choice(list(table.CAPITALS_ZH.items()))
    return Fact(_CAPITAL_ZH, {"x": country}, f"{country}的首都是{city}。", "capital", city)


def _sound(rng: random.Random) -> Fact:
    animal, verb = rng.choice(list(table.ANIMAL_SOUNDS.items()))
    article = table.with_article(animal).split()[0]
    wording = _SOUND
    if article == "an":
        cores = tuple(core.replace("a {x}", "an {x}") for core in wording.cores)
        wording = Wording(cores, tuple(core.replace("a {x}", "an {x}") for core in wording.held_cores))
    return Fact(wording, {"x": animal}, f"{article.capitalize()} {animal} {verb}.", "sound", verb)


def _legs(rng: random.Random) -> Fact:
    animal, legs = rng.choice(list(table.ANIMAL_LEGS.items()))
    name = table.with_article(animal)
    return Fact(_LEGS, {"ax": name}, f"{name[0].upper()}{name[1:]} has {legs} legs.", "legs", legs)


def _young(rng: random.Random) -> Fact:
    animal, young = rng.choice(list(table.ANIMAL_YOUNG.items()))
    return Fact(_YOUNG, {"x": animal}, f"A baby {animal} is called a {young}.", "baby", young)


def _order(rng: random.Random) -> Fact:
    index = rng.randrange(8)
    planet, ordinal = table.PLANETS[index], table.ORDINALS[index]
    return Fact(_ORDER, {"x": ordinal}, f"The {ordinal} planet from the sun is {planet}.", "planet", planet)


def _place(rng: random.Random) -> Fact:
    index = rng.randrange(8)
    planet, ordinal = table.PLANETS[index], table.ORDINALS[index]
    return Fact(_PLACE, {"x": planet}, f"{planet} is the {ordinal} planet from the sun.", "place", index + 1)


def _title(rng: random.Random) -> Fact:
    title, planet = rng.choice(list(table.PLANET_TITLES.items()))
    return Fact(_TITLE, {"x": title}, f"{planet} is the {title} planet.", "planet", planet)


def _colour(rng: random.Random) -> Fact:
    thing, colour = rng.choice(list(table.COLOURS.items()))
    name = table.with_article(thing)
    return Fact(_COLOUR, {"ax": name}, f"{name[0].upper()}{name[1:]} is {colour}.", "colour", colour)


def _mix(rng: random.Random) -> Fact:
    (first, second), mixed = rng.choice(list(table.COLOUR_MIXES.items()))
    if rng.random() < 0.5:
        first, second = second, first
    return Fact(_MIX, {"x": first, "y": second}, f"{first.capitalize()} and {second} make {mixed}.", "colour", mixed)


def _colour_zh(rng: random.Random) -> Fact:
    thing, colour = rng.choice(list(table.COLOURS_ZH.items()))
    return Fact(_COLOUR_ZH, {"x": thing}, f"{thing}是{colour}的。", "colour", colour)


_KINDS: tuple[tuple[Callable[[random.Random], Fact], float], ...] = (
    (_capital, 5), (_country, 3), (_capital_zh, 2), (_sound, 1.3), (_legs, 1.3), (_young, 1.3), (_order, 1),
    (_place, 1), (_title, 0.7), (_colour, 1.8), (_mix, 0.8), (_colour_zh, 1.2),
)  # fmt: skip
_CHINESE_WORDINGS = (_CAPITAL_ZH, _COLOUR_ZH)

_IN_JSON = (
    " Answer in JSON.", " Answer as JSON.", " Reply in JSON.", " Give the answer in JSON.", " Reply with JSON.",
    " Use JSON.", " Answer with a JSON object.", " Return JSON.", " Respond in JSON.", " JSON only, please.",
)  # fmt: skip
_IN_JSON_HELD = (" Reply with a JSON object.", " Please answer in JSON.")
_IN_JSON_ZH = ("请用JSON回答。", "用JSON回答。", "以JSON格式回答。", "请用JSON格式回答。")
_KEYS = ("answer", "result", "value", "name", "city", "reply", "data", "x", "country", "output")


def _fact(rng: random.Random) -> Fact:
    kinds, weights = zip(*_KINDS, strict=True)
    kind: Callable[[random.Random], Fact] = rng.choices(kinds, weights)[0]
    return kind(rng)


def fact_exchange(rng: random.Random) -> Exchange:
    """A question for one fact, answered by a sentence."""
    fact = _fact(rng)
    category = "facts_zh" if fact.wording in _CHINESE_WORDINGS else "facts"
    return ask(rng, category, fact.wording, fact.answer, **fact.fields)


def json_exchange(rng: random.Random) -> Exchange:
    """A question for one fact, to be answered by a JSON object; at times the question names the key."""
    fact = _fact(rng)
    plain = ask(rng, "json", Wording(fact.wording.cores, fact.wording.held_cores, dressed=False), "", **fact.fields)
    key, held = fact.key, plain.held_out
    if fact.wording.chinese:
        request = rng.choice(_IN_JSON_ZH)
    elif rng.random() < 0.25:
        key = rng.choice(_KEYS)
        request = rng.choice((' Answer in JSON with the key "{k}".', ' Reply in JSON, use the key "{k}".')).format(
            k=key
        )
    else:
        request = rng.choice((*_IN_JSON, *_IN_JSON_HELD))
        if request in _IN_JSON_HELD:
            held = "phrasing"
    answer = json.dumps({key: fact.value}, ensure_ascii=False)
    return Exchange("json", plain.question + request, answer, held)
