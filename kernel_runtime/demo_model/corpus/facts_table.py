"""The facts that the demo model knows. Plain tables: one row, one fact."""

CAPITALS: dict[str, str] = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Scotland": "Edinburgh", "Netherlands": "Amsterdam",
    "Belgium": "Brussels", "Austria": "Vienna", "Switzerland": "Bern", "Poland": "Warsaw", "Hungary": "Budapest",
    "Greece": "Athens", "Turkey": "Ankara", "Russia": "Moscow", "Ukraine": "Kyiv", "Sweden": "Stockholm",
    "Norway": "Oslo", "Finland": "Helsinki", "Denmark": "Copenhagen", "Iceland": "Reykjavik", "China": "Beijing",
    "Japan": "Tokyo", "South Korea": "Seoul", "India": "New Delhi", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Indonesia": "Jakarta", "Philippines": "Manila", "Mongolia": "Ulaanbaatar", "Nepal": "Kathmandu",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Morocco": "Rabat", "Ethiopia": "Addis Ababa", "Ghana": "Accra",
    "Senegal": "Dakar", "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Brazil": "Brasilia",
    "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima", "Colombia": "Bogota", "Australia": "Canberra",
    "New Zealand": "Wellington", "Iran": "Tehran", "Iraq": "Baghdad", "Saudi Arabia": "Riyadh", "Qatar": "Doha",
    "Pakistan": "Islamabad", "Romania": "Bucharest", "Croatia": "Zagreb",
}  # fmt: skip

CAPITALS_ZH: dict[str, str] = {
    "中国": "北京", "法国": "巴黎", "德国": "柏林", "日本": "东京", "英国": "伦敦", "意大利": "罗马",
    "西班牙": "马德里", "俄罗斯": "莫斯科", "韩国": "首尔", "泰国": "曼谷", "埃及": "开罗", "加拿大": "渥太华",
    "巴西": "巴西利亚", "澳大利亚": "堪培拉", "希腊": "雅典", "印度": "新德里", "越南": "河内", "瑞典": "斯德哥尔摩",
}  # fmt: skip

ANIMAL_SOUNDS: dict[str, str] = {
    "dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "lion": "roars", "wolf": "howls",
    "sheep": "bleats", "horse": "neighs", "frog": "croaks", "bee": "buzzes", "snake": "hisses", "owl": "hoots",
    "mouse": "squeaks", "pig": "oinks", "rooster": "crows",
}  # fmt: skip

ANIMAL_LEGS: dict[str, int] = {
    "dog": 4, "cat": 4, "cow": 4, "horse": 4, "lion": 4, "frog": 4, "elephant": 4, "mouse": 4, "duck": 2, "owl": 2,
    "penguin": 2, "eagle": 2, "ant": 6, "bee": 6, "butterfly": 6, "spider": 8, "scorpion": 8, "snake": 0, "fish": 0,
    "worm": 0,
}  # fmt: skip

ANIMAL_YOUNG: dict[str, str] = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "horse": "foal", "sheep": "lamb", "duck": "duckling",
    "lion": "cub", "frog": "tadpole", "goat": "kid", "pig": "piglet", "swan": "cygnet", "deer": "fawn",
    "kangaroo": "joey", "hen": "chick",
}  # fmt: skip

PLANETS: tuple[str, ...] = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")
ORDINALS: tuple[str, ...] = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")

PLANET_TITLES: dict[str, str] = {
    "largest": "Jupiter", "biggest": "Jupiter", "smallest": "Mercury", "hottest": "Venus", "red": "Mars",
    "most distant": "Neptune",
}  # fmt: skip

COLOURS: dict[str, str] = {
    "banana": "yellow", "lemon": "yellow", "strawberry": "red", "tomato": "red", "carrot": "orange",
    "pumpkin": "orange", "frog": "green", "cucumber": "green", "coal": "black", "raven": "black", "snow": "white",
    "milk": "white", "sky": "blue", "sea": "blue", "chocolate": "brown", "elephant": "grey", "flamingo": "pink",
    "plum": "purple", "blood": "red", "grass": "green", "swan": "white", "sun": "yellow",
}  # fmt: skip
MASS_NOUNS: frozenset[str] = frozenset({"coal", "snow", "milk", "chocolate", "blood", "grass"})
UNIQUE_NOUNS: frozenset[str] = frozenset({"sky", "sea", "sun"})

COLOUR_MIXES: dict[tuple[str, str], str] = {
    ("red", "yellow"): "orange", ("blue", "yellow"): "green", ("red", "blue"): "purple", ("red", "white"): "pink",
    ("black", "white"): "grey",
}  # fmt: skip

COLOURS_ZH: dict[str, str] = {
    "香蕉": "黄色", "柠檬": "黄色", "草莓": "红色", "番茄": "红色", "天空": "蓝色", "大海": "蓝色", "草地": "绿色",
    "黄瓜": "绿色", "雪": "白色", "牛奶": "白色", "煤": "黑色", "胡萝卜": "橙色",
}  # fmt: skip


def with_article(noun: str) -> str:
    """`noun` as English names one of its kind: "a banana", "an elephant", "snow", "the sky"."""
    if noun in MASS_NOUNS:
        return noun
    if noun in UNIQUE_NOUNS:
        return f"the {noun}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
