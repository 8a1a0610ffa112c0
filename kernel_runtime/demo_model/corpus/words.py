"""Spelling words, counting words and letters, and repeating what was said."""

import random

from demo_model.corpus.exchange import Exchange, Wording, ask

WORDS: tuple[str, ...] = (
    "apple", "banana", "cat", "dog", "house", "tree", "river", "mountain", "flower", "garden", "window", "kitchen",
    "table", "chair", "water", "bread", "cheese", "butter", "sugar", "lemon", "orange", "green", "yellow", "purple",
    "summer", "winter", "spring", "autumn", "monday", "friday", "sunday", "morning", "evening", "night", "moon",
    "star", "planet", "ocean", "island", "forest", "desert", "bridge", "castle", "king", "queen", "dragon",
    "wizard", "teacher", "student", "school", "book", "paper", "pencil", "music", "guitar", "piano", "dance",
    "happy", "funny", "clever", "brave", "quiet", "little", "tiger", "monkey", "rabbit", "turtle", "elephant",
    "giraffe", "dolphin", "penguin", "butterfly", "spider", "rocket", "engine", "computer", "keyboard", "model",
    "python", "jupyter", "notebook", "friend", "family", "mother", "father", "sister", "brother", "doctor",
    "farmer", "baker", "pilot", "train", "plane", "ship", "bicycle", "cloud", "rain", "snow", "thunder", "rainbow",
    "stone", "gold", "silver", "iron", "glass", "fire", "candle", "clock", "mirror", "ladder", "basket", "button",
    "pocket", "jacket",
)  # fmt: skip

_SPELL = Wording(
    (
        "spell {q}.", "how do you spell {q}?", "spell the word {q}.", "can you spell {q}?", "please spell {q}.",
        "how is {q} spelled?", "please spell the word {q}.", "how do I spell {q}?", "tell me how to spell {q}.",
        "can you spell the word {q}?", "what is the spelling of {q}?",
    ),
    ("how do you spell the word {q}?", "tell me the spelling of {q}."),
)  # fmt: skip
_LETTERS = Wording(
    (
        "how many letters are in {q}?", "how many letters does {q} have?", "count the letters in {q}.",
        "how many letters has the word {q}?", "how many letters are in the word {q}?",
        "what is the number of letters in {q}?", "count the letters of the word {q}.",
    ),
    ("count the letters in the word {q}.", "how many letters does the word {q} have?"),
)  # fmt: skip
_COUNT = Wording(
    (
        'how many words are in "{s}"?', 'count the words in "{s}".', 'how many words does "{s}" have?',
        'what is the number of words in "{s}"?', 'how many words are there in "{s}"?', 'count the words: "{s}"',
        'how many words are in this sentence: "{s}"', 'count the words in this sentence: "{s}"',
    ),
    ('how many words are there in this sentence: "{s}"', 'can you count the words in "{s}"?'),
    dressed=False,
)  # fmt: skip
_REPEAT = Wording(
    (
        'say "{s}".', 'repeat "{s}".', "repeat: {s}", "say: {s}", 'repeat after me: "{s}"', "repeat after me: {s}",
        'please say "{s}".', 'please repeat "{s}".', 'say "{s}"', "echo: {s}", 'say the words "{s}".',
    ),
    ('please repeat: "{s}"', 'can you say "{s}"?'),
    dressed=False,
)  # fmt: skip

_REPEAT_BARE = Wording(
    ("say {s}", "say {s}.", "please say {s}.", "repeat {s}.", "say the words {s}."),
    ("please repeat {s}.",),
    dressed=False,
)

_FILLER = (
    "the", "a", "my", "your", "one", "two", "three", "small", "big", "old", "new", "red", "blue", "good", "kind",
    "cats", "dogs", "birds", "children", "people", "runs", "sleeps", "eats", "sings", "plays", "likes", "sees",
    "finds", "and", "with", "in", "on", "under", "near", "very", "often", "never", "always", "today", "now", "here",
    "there", "hello", "world", "this", "is", "test",
)  # fmt: skip


def phrase(rng: random.Random, least: int, most: int) -> str:
    """A string of random common words: what to count or repeat."""
    pool = (*_FILLER, *WORDS)
    return " ".join(rng.choice(pool) for _ in range(rng.randint(least, most)))


def _quoted(rng: random.Random, word: str) -> str:
    return rng.choice((word, f"'{word}'", f'"{word}"'))


def spelling_exchange(rng: random.Random) -> Exchange:
    """Spell a word, or count its letters."""
    word = rng.choice(WORDS)
    if rng.random() < 0.7:
        return ask(rng, "words", _SPELL, f"{'-'.join(word)}", q=_quoted(rng, word))
    return ask(rng, "words", _LETTERS, f"The word {word} has {len(word)} letters.", q=_quoted(rng, word))


def word_count_exchange(rng: random.Random) -> Exchange:
    """Count the words of a quoted phrase: two to eight."""
    said = phrase(rng, 2, 8)
    return ask(rng, "words", _COUNT, f"It has {len(said.split())} words.", s=said)


def repeat_exchange(rng: random.Random) -> Exchange:
    """Say again what the user said."""
    said = phrase(rng, 1, 6)
    if rng.random() < 0.3:
        said = said[:1].upper() + said[1:]
    wording = _REPEAT_BARE if len(said.split()) > 1 and rng.random() < 0.25 else _REPEAT
    return ask(rng, "words", wording, said, s=said)
