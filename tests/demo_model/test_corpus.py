"""The generated text: the same for the same seed, and free of what it is later tested on."""

import itertools
import random
from collections import Counter

import pytest

from demo_model.corpus.conversation import Conversation
from demo_model.corpus.exchange import Wording, ask, normalised
from demo_model.corpus.mixture import SOURCES, held_out_conversations, training_conversations
from demo_model.corpus.numbers import LARGEST_ADDEND, operands_held_out
from demo_model.corpus.stories import HEROES, is_story, long_story, names_hero, short_story
from demo_model.corpus.tool_calls import call_conversation

SAMPLE = 3000


@pytest.fixture(scope="module")
def training() -> list[Conversation]:
    return list(itertools.islice(training_conversations(1), SAMPLE))


@pytest.fixture(scope="module")
def held_out() -> list[Conversation]:
    return held_out_conversations(1, 60)


def test_same_seed_gives_the_same_conversations(training: list[Conversation]) -> None:
    assert list(itertools.islice(training_conversations(1), 50)) == training[:50]


def test_another_seed_gives_other_conversations(training: list[Conversation]) -> None:
    assert list(itertools.islice(training_conversations(2), 50)) != training[:50]


def test_held_out_questions_never_occur_in_training(training: list[Conversation], held_out: list[Conversation]) -> None:
    asked = {normalised(c.user_texts()[0 if c.tools else -1]) for c in held_out}
    learned = {normalised(text) for c in training for text in c.user_texts()}
    assert len(asked) > 700
    assert not asked & learned


def test_held_out_set_covers_every_category(held_out: list[Conversation]) -> None:
    counts = Counter(c.category for c in held_out)
    assert set(counts) == {
        "counting", "facts", "facts_zh", "json", "no_tool", "product", "small_talk", "small_talk_zh", "stories",
        "sums",
        "tool_calls", "tool_results", "unknown", "words",
    }  # fmt: skip
    assert min(counts.values()) >= 35


def test_a_good_share_of_the_held_out_set_has_wordings_never_seen(held_out: list[Conversation]) -> None:
    kinds = Counter(c.held_out for c in held_out)
    assert kinds["phrasing"] > len(held_out) / 2
    assert kinds["pair"] > len(held_out) / 10


def test_held_core_is_never_a_training_question() -> None:
    wording = Wording(("what is {x}?",), ("define {x}.",), dressed=False)
    rng = random.Random(0)
    for _ in range(50):
        exchange = ask(rng, "facts", wording, "", x="it")
        assert (exchange.held_out == "phrasing") == exchange.question.startswith("Define")


def test_held_operands_are_a_part_of_all_sums() -> None:
    numbers = range(LARGEST_ADDEND + 1)
    held = sum(operands_held_out(a, b) for a in numbers for b in numbers)
    assert 0.08 < held / len(numbers) ** 2 < 0.17


@pytest.mark.parametrize("source", [source for source, _ in SOURCES], ids=lambda source: source.__name__)
def test_a_question_has_one_answer(source) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(3)
    answers: dict[str, set[str]] = {}
    for _ in range(1500):
        exchange = source(rng)
        if exchange.category != "stories":
            answers.setdefault(exchange.question, set()).add(exchange.answer)
    assert [question for question, given in answers.items() if len(given) > 1] == []


def test_conversations_have_one_weight_for_each_answer(training: list[Conversation]) -> None:
    for conversation in training:
        answers = sum(message["role"] == "assistant" for message in conversation.messages)
        assert len(conversation.weights) == (1 if conversation.plain else answers)


def test_a_call_names_an_offered_tool_and_its_parameters() -> None:
    rng = random.Random(5)
    for _ in range(300):
        conversation = call_conversation(rng)
        offered = {tool["function"]["name"]: tool["function"] for tool in conversation.tools}
        for message in conversation.messages:
            for call in message.get("tool_calls", []):
                assert call["function"]["name"] in offered


def test_the_recogniser_knows_the_stories_of_the_grammar() -> None:
    rng = random.Random(7)
    for hero in HEROES:
        for tell in (short_story, long_story):
            story = tell(rng, hero)
            assert is_story(story, like=story)
            assert names_hero(f"Tell me a story about a {hero}.", story)


def test_the_recogniser_refuses_a_story_that_changes_its_hero_midway() -> None:
    story = short_story(random.Random(1), "fox")
    name = story.split("called ")[1].split()[0]
    other = "Luna" if name != "Luna" else "Max"
    changed = story.replace(f"So {name} found", f"So {other} found")
    assert changed != story
    assert not is_story(changed, like=story)
