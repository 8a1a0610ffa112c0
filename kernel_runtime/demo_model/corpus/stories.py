"""Short and long stories from a small grammar, and a recogniser of what the grammar can tell."""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import random
import re

from demo_model.corpus.exchange import Exchange, Wording, ask
from demo_model.corpus.words import WORDS

HEROES: tuple[str, ...] = (
    "fox", "rabbit", "bear", "mouse", "dragon", "cat", "dog", "owl", "turtle", "wizard", "princess", "robot", "lion",
    "penguin", "frog", "elephant", "king", "hedgehog",
)  # fmt: skip
_QUALITIES = frozenset(
    ("green", "yellow", "purple", "happy", "funny", "clever", "brave", "quiet", "little", "monday", "friday", "sunday",
     "rain", "snow", "thunder", "iron", "gold", "silver", "music", "python", "jupyter")
)  # fmt: skip
_THINGS = tuple(word for word in WORDS if word not in _QUALITIES)
NAMES: tuple[str, ...] = (
    "Luna", "Max", "Mia", "Leo", "Ruby", "Oscar", "Nina", "Tom", "Ella", "Finn", "Lily", "Sam", "Ada", "Hugo", "Rosa",
    "Ben",
)  # fmt: skip
_NATURES = ("little", "brave", "clever", "kind", "shy", "curious", "young", "funny")
_PLACES = ("a dark forest", "a small village", "a green valley", "an old castle", "a little town",
           "a house by the sea",
           "a warm garden", "a cave in the mountains")  # fmt: skip
_WISHES = ("a golden key", "a new friend", "the way home", "a magic flower", "a lost star", "a red balloon",
           "the best cake in the world", "an old treasure map")  # fmt: skip
_TIMES = ("One sunny morning", "One cold night", "One rainy day", "One day", "On a windy evening")
_TROUBLES = ("But the river was too deep.", "But a big storm came.", "But the bridge was broken.",
             "But the door was locked.",
             "But the path was full of stones.", "But it was very dark.")  # fmt: skip
_HELPERS = ("An old owl", "A friendly bee", "A tall giant", "A small boy", "A wise snail", "A silver fish")
_DEEDS = ("showed the way", "gave good advice", "brought a lamp", "told a secret", "shared some bread", "sang a song")
_ENDINGS = ("and everyone was happy", "and the sun came out", "and they danced all night",
            "and they shared a big cake",
            "and all the bells rang", "and the stars were bright")  # fmt: skip
_LESSONS = ("{name} never forgot that day.", "From then on, {name} was never alone.",
            "That night {name} slept very well.",
            "And {name} smiled.")  # fmt: skip

_TELL = Wording(
    (
        "tell me a story.", "tell me a short story.", "can you tell me a story?", "I want to hear a story.",
        "tell a story.",
        "do you know a story?", "please tell me a story.", "a story, please.", "write a short story.",
        "write a story.",
        "make up a story.", "give me a story.", "tell me a bedtime story.", "I would like to hear a story.",
    ),
    ("can you tell me a short story?", "please write a short story."),
)  # fmt: skip
_TELL_ABOUT = Wording(
    (
        "tell me a story about {ax}.", "tell me a short story about {ax}.", "can you tell me a story about {ax}?",
        "write a story about {ax}.", "do you know a story about {ax}?", "I want to hear a story about {ax}.",
        "write a short story about {ax}.", "make up a story about {ax}.", "a story about {ax}, please.",
    ),
    ("please tell me a story about {ax}.", "I would like to hear a story about {ax}."),
)  # fmt: skip
_TELL_LONG = Wording(
    (
        "tell me a long story.", "can you tell me a long story?", "I want to hear a long story.",
        "write a long story.",
        "please tell me a long story.", "a long story, please.", "tell me a very long story.", "give me a long story.",
        "I would like a long story.", "please give me a long story.", "I would like to read a long story.",
        "can you write a long story?", "write a very long story.", "please make up a long story.",
        "make it a long story.",
        "do you know a long story?", "please tell a long story.", "I would like to hear a very long story.",
    ),
    ("please write a long story.", "I would like to hear a long story."),
)  # fmt: skip
_TELL_ZH = Wording(
    ("给我讲个故事。", "讲个故事。", "讲一个故事。", "请讲个故事。", "你会讲故事吗？", "我想听故事。", "说个故事。",
     "来个故事。"),
    ("给我讲一个故事。", "请给我讲个故事。"),
    chinese=True,
)  # fmt: skip
_HEROES_ZH = ("小狐狸", "小兔子", "小熊", "小猫", "小狗", "小猴子", "小鸟")
_PLACES_ZH = ("森林里", "山上", "海边", "村子里", "花园里")
_WISHES_ZH = ("一朵红花", "一个新朋友", "回家的路", "一颗星星", "一把金钥匙")
_HELPERS_ZH = ("老爷爷", "老奶奶", "小女孩", "老师", "农夫")

CHAPTERS = 5
STORY_OPENINGS = ("Once upon a time", "从前")


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _adventure(rng: random.Random, name: str) -> list[str]:
    helper = rng.choice(_HELPERS)
    return [
        f"{rng.choice(_TIMES)} {name} went out to find {rng.choice(_WISHES)}.",
        rng.choice(_TROUBLES),
        f"{helper} came by and {rng.choice(_DEEDS)}.",
        f"So {name} found it at last, {rng.choice(_ENDINGS)}.",
    ]


def _opening(rng: random.Random, hero: str, name: str) -> str:
    nature = rng.choice(_NATURES)
    return f"Once upon a time there was {_article(nature)} {hero} called {name} who lived in {rng.choice(_PLACES)}."


def short_story(rng: random.Random, hero: str) -> str:
    """Six sentences about `hero`."""
    name = rng.choice(NAMES)
    lesson = rng.choice(_LESSONS).format(name=name)
    return " ".join((_opening(rng, hero, name), *_adventure(rng, name), lesson))


def long_story(rng: random.Random, hero: str) -> str:
    """CHAPTERS numbered adventures of the same hero: a few hundred tokens."""
    name = rng.choice(NAMES)
    parts = [_opening(rng, hero, name)]
    parts += [f"Chapter {number}. {' '.join(_adventure(rng, name))}" for number in range(1, CHAPTERS + 1)]
    parts.append(rng.choice(_LESSONS).format(name=name) + " The end.")
    return "\n\n".join(parts)


def chinese_story(rng: random.Random) -> str:
    """Five short Chinese sentences."""
    hero, wish, helper = rng.choice(_HEROES_ZH), rng.choice(_WISHES_ZH), rng.choice(_HELPERS_ZH)
    place = rng.choice(_PLACES_ZH)
    return (
        f"从前，有一只{hero}住在{place}。有一天，{hero}想找{wish}。可是路很远，{hero}迷路了。"
        f"一位{helper}帮助了{hero}。最后，{hero}找到了{wish}，大家都很高兴。"
    )


def story_exchange(rng: random.Random) -> Exchange:
    """A request for a story. The answer is one of many right ones: judge others with `is_story`."""
    hero, kind = rng.choice(HEROES if rng.random() < 0.7 else _THINGS), rng.random()
    if kind < 0.35:
        return ask(rng, "stories", _TELL, short_story(rng, hero))
    if kind < 0.7:
        return ask(rng, "stories", _TELL_ABOUT, short_story(rng, hero), ax=_article(hero))
    if kind < 0.88:
        return ask(rng, "stories", _TELL_LONG, long_story(rng, hero))
    return ask(rng, "stories", _TELL_ZH, chinese_story(rng))


def _one_of(choices: tuple[str, ...]) -> str:
    return "(?:" + "|".join(re.escape(choice) for choice in choices) + ")"


_NATURE_PATTERN = "(?:" + "|".join(re.escape(_article(nature)) for nature in _NATURES) + ")"
_OPENING_PATTERN = (
    rf"Once upon a time there was {_NATURE_PATTERN} (?P<hero>\w+) called "
    rf"(?P<name>{_one_of(NAMES)}) who lived in {_one_of(_PLACES)}\."
)
_ADVENTURE_PATTERN = (
    rf"{_one_of(_TIMES)} (?P=name) went out to find {_one_of(_WISHES)}\. {_one_of(_TROUBLES)} {_one_of(_HELPERS)} "
    rf"came by and {_one_of(_DEEDS)}\. So (?P=name) found it at last, {_one_of(_ENDINGS)}\."
)
_LESSON_PATTERN = "(?:" + "|".join(re.escape(lesson).replace(r"\{name\}", "(?P=name)") for lesson in _LESSONS) + ")"
_SHORT = re.compile(f"{_OPENING_PATTERN} {_ADVENTURE_PATTERN} {_LESSON_PATTERN}")
_LONG = re.compile(
    rf"{_OPENING_PATTERN}\n\n"
    + "".join(rf"Chapter {number}\. {_ADVENTURE_PATTERN}\n\n" for number in range(1, CHAPTERS + 1))
    + rf"{_LESSON_PATTERN} The end\."
)
_CHINESE = re.compile(
    rf"从前，有一只(?P<hero>{_one_of(_HEROES_ZH)})住在{_one_of(_PLACES_ZH)}。有一天，(?P=hero)想找(?P<wish>{_one_of(_WISHES_ZH)})。"
    rf"可是路很远，(?P=hero)迷路了。一位{_one_of(_HELPERS_ZH)}帮助了(?P=hero)。最后，(?P=hero)找到了(?P=wish)，大家都很高兴。"
)


def is_story(text: str, like: str) -> bool:
    """True if the grammar can tell `text` in answer to the request that `like` answers.

    `like` fixes the kind (short, long, Chinese); a request for a given hero also needs `names_hero`.
    """
    for pattern in (_SHORT, _LONG, _CHINESE):
        if pattern.fullmatch(like):
            return pattern.fullmatch(text) is not None
    raise ValueError(f"the sample answer is not a story of this grammar: {like[:60]!r}")


def names_hero(question: str, text: str) -> bool:
    """True if the story's hero is the one that the question asks for, or the question asks for none."""
    asked = re.search(r"about an? (\w+)", question)
    return asked is None or f" {asked.group(1)} called " in text
