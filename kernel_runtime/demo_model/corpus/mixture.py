"""The mixture of all kinds of text: the training conversations, and the held-out questions."""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import random
from collections.abc import Callable, Iterator

from demo_model.corpus import facts_table
from demo_model.corpus.conversation import Conversation, Message
from demo_model.corpus.exchange import Exchange
from demo_model.corpus.facts import fact_exchange, json_exchange
from demo_model.corpus.numbers import counting_exchange, sum_exchange
from demo_model.corpus.product import product_exchange
from demo_model.corpus.small_talk import small_talk_exchange, small_talk_zh_exchange, unknown_exchange
from demo_model.corpus.stories import HEROES, long_story, short_story, story_exchange
from demo_model.corpus.tool_calls import call_conversation, missing_tool_exchange, no_call_conversation
from demo_model.corpus.words import repeat_exchange, spelling_exchange, word_count_exchange

Source = Callable[[random.Random], Exchange]

SOURCES: tuple[tuple[Source, float], ...] = (
    (fact_exchange, 26), (json_exchange, 11), (sum_exchange, 17), (counting_exchange, 4), (spelling_exchange, 7),
    (word_count_exchange, 5), (repeat_exchange, 3), (small_talk_exchange, 8), (small_talk_zh_exchange, 5),
    (product_exchange, 9), (unknown_exchange, 5), (missing_tool_exchange, 1.5), (story_exchange, 4),
)  # fmt: skip
_LONG_SOURCES = (story_exchange, counting_exchange)
_SHORT_SOURCES = tuple((source, weight) for source, weight in SOURCES if source not in _LONG_SOURCES)
_NO_TOOL_SOURCES: tuple[tuple[Source, float], ...] = (
    (fact_exchange, 4), (small_talk_exchange, 3), (small_talk_zh_exchange, 1), (product_exchange, 2),
    (spelling_exchange, 1),
    (unknown_exchange, 1), (json_exchange, 1), (story_exchange, 0.3),
)  # fmt: skip

SYSTEM_PROMPTS: tuple[str, ...] = (
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a friendly assistant.",
    "You are helpful.",
    "You are xinfer-demo.", "Be brief.", "Be kind and brief.", "Answer the question.", "You are a useful assistant.",
    "You are a chatbot.", "You are an AI assistant. Answer briefly.", "You are a helpful assistant with tools.",
    "You are a teacher.", "Please be helpful.", "Answer in one sentence.", "You are a helpful AI model.",
)  # fmt: skip


def _draw(rng: random.Random, sources: tuple[tuple[Source, float], ...], held_out: bool = False) -> Exchange:
    while True:
        source = rng.choices([s for s, _ in sources], [w for _, w in sources])[0]
        found = source(rng)
        if bool(found.held_out) == held_out:
            return found


def _weight(exchange: Exchange) -> int:
    if exchange.category == "stories":
        return 1
    return 2 if exchange.category == "counting" and len(exchange.answer) > 80 else 4


def _worn(rng: random.Random, question: str, may_lower: bool) -> str:
    """The question as hurried people type it: at times without its last mark, or all in lower case."""
    kind = rng.random()
    if kind < 0.08 and question[-1] in "?.!？。！":
        return question[:-1]
    if kind < 0.14 and may_lower:
        return question.lower()
    return question


def _turn(rng: random.Random, exchange: Exchange, worn: bool) -> list[Message]:
    question = exchange.question
    if worn and '"' not in question:
        question = _worn(rng, question, may_lower=exchange.category != "words")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": exchange.answer}]


def _with_system(rng: random.Random, messages: list[Message], share: float) -> list[Message]:
    if rng.random() < share:
        return [{"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}, *messages]
    return messages


def _chat(rng: random.Random, turns: int) -> Conversation:
    messages: list[Message] = []
    weights = []
    sources = SOURCES if turns == 1 else _SHORT_SOURCES
    for turn in range(turns):
        exchange = _draw(rng, SOURCES if turn == turns - 1 and turns < 4 else sources)
        messages += _turn(rng, exchange, worn=True)
        weights.append(_weight(exchange))
    return Conversation(exchange.category, _with_system(rng, messages, 0.2), [], weights)


def _plain(rng: random.Random) -> Conversation:
    hero = rng.choice(HEROES)
    kind = rng.random()
    if kind < 0.2:
        text = long_story(rng, hero)
    elif kind < 0.6:
        text = short_story(rng, hero)
    else:
        pairs = rng.sample(list(facts_table.CAPITALS.items()), 4)
        text = " ".join(f"The capital of {country} is {city}." for country, city in pairs)
    return Conversation("plain", plain=text, weights=[1])


def training_conversation(rng: random.Random) -> Conversation:
    """One conversation that holds no held-out question."""
    kind = rng.random()
    if kind < 0.50:
        return _chat(rng, 1)
    if kind < 0.66:
        return _chat(rng, rng.randint(2, 4))
    if kind < 0.69:
        return _chat(rng, rng.randint(5, 14))
    if kind < 0.70:
        return _chat(rng, rng.randint(15, 30))
    if kind < 0.72:
        return _plain(rng)
    found = call_conversation(rng) if kind < 0.92 else no_call_conversation(rng, lambda: _draw(rng, _NO_TOOL_SOURCES))
    found.messages = _with_system(rng, found.messages, 0.2)
    if rng.random() < 0.12:
        before = _draw(rng, _NO_TOOL_SOURCES[:4])
        system = found.messages[:1] if found.messages[0]["role"] == "system" else []
        found.messages = [*system, *_turn(rng, before, worn=True), *found.messages[len(system) :]]
        found.weights = [_weight(before), *found.weights]
    elif rng.random() < 0.2 and found.category == "tool_results":
        after = _draw(rng, _NO_TOOL_SOURCES[:4])
        found.messages = [*found.messages, *_turn(rng, after, worn=True)]
        found.weights = [*found.weights, _weight(after)]
    return found


def training_conversations(seed: int) -> Iterator[Conversation]:
    """An endless stream of training conversations, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        yield training_conversation(rng)


def held_out_conversations(seed: int, per_category: int) -> list[Conversation]:
    """Held-out questions, `per_category` distinct ones of each category (fewer where there are fewer).

    Most stand alone; one in seven follows a system prompt and one in seven an earlier exchange.
    """
    rng = random.Random(seed + 1_000_003)
    found: dict[str, dict[str, Conversation]] = {}

    def keep(conversation: Conversation, key: str) -> None:
        group = found.setdefault(conversation.category, {})
        if len(group) < per_category and key not in group:
            group[key] = conversation

    for source, _ in SOURCES:
        for _ in range(40 * per_category):
            exchange = source(rng)
            if not exchange.held_out:
                continue
            messages = _turn(rng, exchange, worn=False)
            kind = rng.random()
            if kind < 1 / 7:
                messages = [{"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}, *messages]
            elif kind < 2 / 7:
                messages = [*_turn(rng, _draw(rng, _SHORT_SOURCES), worn=False), *messages]
            keep(Conversation(exchange.category, messages, [], [4], exchange.held_out), exchange.question)
    for _ in range(12 * per_category):
        conversation = call_conversation(rng, held_out=True)
        keep(conversation, conversation.user_texts()[0])
        conversation = no_call_conversation(rng, lambda: _draw(rng, _NO_TOOL_SOURCES, held_out=True))
        if conversation.held_out:
            keep(conversation, conversation.user_texts()[0])
    return [conversation for category in sorted(found) for conversation in found[category].values()]
