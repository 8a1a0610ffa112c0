"""What the demo model's tools are asked and what they say: random arguments, results, and the answers they lead to.

A value function draws the arguments of a call. A result function maps them to what the tool says (a text or a JSON
value) and to the assistant's final answer.
"""

import random

from demo_model.corpus.facts_table import CAPITALS
from demo_model.corpus.words import phrase

Values = dict[str, object]

_CITIES = (
    *CAPITALS.values(), "New York", "San Francisco", "Los Angeles", "Chicago", "Boston", "Seattle", "Munich",
    "Hamburg",
    "Milan", "Barcelona", "Zurich", "Geneva", "Shanghai", "Shenzhen", "Hong Kong", "Singapore", "Mumbai", "Sydney",
    "Toronto", "Istanbul", "Osaka", "Kyoto", "Prague", "Lyon", "Dubai",
)  # fmt: skip
PEOPLE = ("Alice", "Bob", "Anna", "Peter", "Maria", "John", "Tom", "Lucy", "David", "Sara", "Emma", "Paul", "Ben",
           "Nina")  # fmt: skip
_CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CNY", "CHF", "CAD", "AUD", "INR", "SEK")
SYMBOLS = ("AAPL", "MSFT", "GOOG", "AMZN", "NVDA", "TSLA", "META", "INTC", "AMD", "IBM", "NFLX", "ORCL")
LANGUAGES = ("French", "German", "Spanish", "Italian", "Chinese", "Japanese", "Russian", "Portuguese")
ROOMS = ("kitchen", "bedroom", "garden", "bathroom", "office", "living room", "garage", "hall")
_CONDITIONS = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear", "stormy")
_STARTS = ("Ba", "Co", "Da", "El", "Fa", "Gro", "Ha", "Ka", "Lo", "Mar", "Ne", "Or", "Pi", "Ro", "Sta", "Ta", "Ve",
           "Wi", "Zu")  # fmt: skip
_MIDDLES = ("la", "ri", "no", "ber", "ma", "ti", "do", "ve", "sa", "len", "ko", "ra", "")
_ENDS = ("ton", "burg", "ville", "ra", "na", "ford", "stad", "lia", "don", "mora", "via", "ne")


def made_up_name(rng: random.Random) -> str:
    """A capitalised name that means nothing, so that copying it is the only way."""
    return rng.choice(_STARTS) + rng.choice(_MIDDLES) + rng.choice(_ENDS)


def city_name(rng: random.Random) -> str:
    """A city, at times one that does not exist."""
    return made_up_name(rng) if rng.random() < 0.3 else rng.choice(_CITIES)


def _number_result(rng: random.Random, value: object, *keys: str) -> object:
    return rng.choice((value, str(value), {rng.choice(("result", "value", *keys)): value}))


def weather(rng: random.Random, values: Values) -> tuple[object, str]:
    """Temperature and sky, or one of them, under various keys."""
    degrees, sky, city = rng.choice((*range(-9, -1), 0, *range(2, 40))), rng.choice(_CONDITIONS), values["city"]
    kind = rng.random()
    if kind < 0.5:
        heat = rng.choice(("temperature", "temperature", "temp", "degrees", "temperature_c"))
        look = rng.choice(("condition", "conditions", "sky", "weather"))
        pairs: list[tuple[str, object]] = [(heat, degrees), (look, sky)]
        if rng.random() < 0.3:
            pairs.insert(0, (rng.choice(("city", "location")), city))
        if rng.random() < 0.4:
            pairs.reverse()
        return dict(pairs), f"It is {degrees} degrees and {sky} in {city}."
    if kind < 0.7:
        heat = rng.choice(("temperature", "temp", "degrees"))
        return {heat: degrees}, f"It is {degrees} degrees in {city}."
    text = rng.choice((f"{sky}, {degrees} degrees", f"{degrees} degrees and {sky}", f"{sky}", f"{sky}, {degrees} C"))
    return text, f"The weather in {city}: {text}."


def local_time(rng: random.Random, values: Values) -> tuple[object, str]:
    """The time of day."""
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    result = rng.choice((clock, {rng.choice(("time", "local_time", "now")): clock}))
    return result, f"It is {clock} in {values['city']}."


def total(rng: random.Random, values: Values) -> tuple[object, str]:
    """The sum of the call's two numbers."""
    total = int(str(values["a"])) + int(str(values["b"]))
    return _number_result(rng, total, "sum", "answer"), f"The result is {total}."


def product(rng: random.Random, values: Values) -> tuple[object, str]:
    """The product of the call's two numbers."""
    product = int(str(values["a"])) * int(str(values["b"]))
    return _number_result(rng, product, "product", "answer"), f"The result is {product}."


def converted(rng: random.Random, values: Values) -> tuple[object, str]:
    """An amount of the other currency."""
    amount = round(rng.uniform(1, 900), rng.choice((0, 1, 2)))
    number: int | float = int(amount) if amount == int(amount) else amount
    result = _number_result(rng, number, "amount", "converted")
    return result, f"{values['amount']} {values['from']} is {number} {values['to']}."


def found(rng: random.Random, values: Values) -> tuple[object, str]:
    """A few words."""
    text = phrase(rng, 2, 6)
    return rng.choice(
        (text, {rng.choice(("result", "text", "answer")): text}, {"results": [text]})
    ), f"I found this: {text}."


def sent(rng: random.Random, values: Values) -> tuple[object, str]:
    """That the message went out."""
    status = rng.choice(("ok", "sent", "done"))
    return rng.choice((status, {"status": status}, {"success": True})), f"I sent the message to {values['to']}."


def timer(rng: random.Random, values: Values) -> tuple[object, str]:
    """That the timer runs."""
    status = rng.choice(("ok", "started", "done"))
    return rng.choice((status, {"status": status})), f"The timer is set to {values['minutes']} minutes."


def price(rng: random.Random, values: Values) -> tuple[object, str]:
    """The price of a share."""
    price = round(rng.uniform(5, 900), 2)
    return _number_result(rng, price, "price"), f"The price of {values['symbol']} is {price}."


def translated(rng: random.Random, values: Values) -> tuple[object, str]:
    """Some words that stand for the translation."""
    text = phrase(rng, 1, 3) if rng.random() < 0.5 else made_up_name(rng).lower()
    return rng.choice((text, {rng.choice(("translation", "text", "result")): text})), f"In {values['language']}: {text}"


def light(rng: random.Random, values: Values) -> tuple[object, str]:
    """That the light is switched."""
    answer = f"The light in the {values['room']} is {values['state']}."
    return rng.choice(("ok", {"status": "ok"}, {"success": True})), answer


def date(rng: random.Random, values: Values) -> tuple[object, str]:
    """A date."""
    date = f"{rng.randint(2020, 2035)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return rng.choice((date, {"date": date})), f"Today is {date}."


def order_status(rng: random.Random, values: Values) -> tuple[object, str]:
    """How far an order is."""
    status = rng.choice(("shipped", "delivered", "pending", "cancelled", "paid"))
    return rng.choice((status, {"status": status}, {"order_status": status})), f"Order {values['id']} is {status}."


def two_numbers(rng: random.Random) -> Values:
    """Two integers of up to three digits."""
    top = rng.choice((20, 100, 1000))
    return {"a": rng.randint(0, top), "b": rng.randint(0, top)}


def exchange_values(rng: random.Random) -> Values:
    """An amount and two currencies."""
    source, target = rng.sample(_CURRENCIES, 2)
    return {"amount": rng.randint(1, 999), "from": source, "to": target}
