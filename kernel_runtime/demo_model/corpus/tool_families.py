"""The families of tools that the demo model learns to call: names, schemas, questions, results and final answers."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from demo_model.corpus.facts_table import CAPITALS
from demo_model.corpus.words import phrase

_CITIES = (
    *CAPITALS.values(), "New York", "San Francisco", "Los Angeles", "Chicago", "Boston", "Seattle", "Munich", "Hamburg",
    "Milan", "Barcelona", "Zurich", "Geneva", "Shanghai", "Shenzhen", "Hong Kong", "Singapore", "Mumbai", "Sydney",
    "Toronto", "Istanbul", "Osaka", "Kyoto", "Prague", "Lyon", "Dubai",
)  # fmt: skip
_PEOPLE = ("Alice", "Bob", "Anna", "Peter", "Maria", "John", "Tom", "Lucy", "David", "Sara", "Emma", "Paul", "Ben", "Nina")
_CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CNY", "CHF", "CAD", "AUD", "INR", "SEK")
_SYMBOLS = ("AAPL", "MSFT", "GOOG", "AMZN", "NVDA", "TSLA", "META", "INTC", "AMD", "IBM", "NFLX", "ORCL")
_LANGUAGES = ("French", "German", "Spanish", "Italian", "Chinese", "Japanese", "Russian", "Portuguese")
_ROOMS = ("kitchen", "bedroom", "garden", "bathroom", "office", "living room", "garage", "hall")
_CONDITIONS = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear", "stormy")
_STARTS = ("Ba", "Co", "Da", "El", "Fa", "Gro", "Ha", "Ka", "Lo", "Mar", "Ne", "Or", "Pi", "Ro", "Sta", "Ta", "Ve", "Wi", "Zu")
_MIDDLES = ("la", "ri", "no", "ber", "ma", "ti", "do", "ve", "sa", "len", "ko", "ra", "")
_ENDS = ("ton", "burg", "ville", "ra", "na", "ford", "stad", "lia", "don", "mora", "via", "ne")

Values = dict[str, object]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a tool family: what it is called, its JSON type, and how its schema may describe it."""

    field: str
    names: tuple[str, ...]
    type: str
    descriptions: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """Tools that do the same under different names.

    `questions` hold `{field}` places; `result` maps the call's values to what the tool says (text or JSON value) and
    the final answer.
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    questions: tuple[str, ...]
    held_questions: tuple[str, ...]
    values: Callable[[random.Random], Values]
    result: Callable[[random.Random, Values], tuple[object, str]]


def made_up_name(rng: random.Random) -> str:
    """A capitalised name that means nothing, so that copying it is the only way."""
    return rng.choice(_STARTS) + rng.choice(_MIDDLES) + rng.choice(_ENDS)


def _city(rng: random.Random) -> str:
    return made_up_name(rng) if rng.random() < 0.3 else rng.choice(_CITIES)


def _number_result(rng: random.Random, value: object, *keys: str) -> object:
    return rng.choice((value, str(value), {rng.choice(("result", "value", *keys)): value}))


def _weather(rng: random.Random, values: Values) -> tuple[object, str]:
    degrees, sky, city = rng.randint(-9, 39), rng.choice(_CONDITIONS), values["city"]
    kind = rng.random()
    if kind < 0.5:
        heat = rng.choice(("temperature", "temperature", "temp", "degrees", "temperature_c"))
        pairs: list[tuple[str, object]] = [(heat, degrees), (rng.choice(("condition", "conditions", "sky", "weather")), sky)]
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


def _time(rng: random.Random, values: Values) -> tuple[object, str]:
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    result = rng.choice((clock, {rng.choice(("time", "local_time", "now")): clock}))
    return result, f"It is {clock} in {values['city']}."


def _sum(rng: random.Random, values: Values) -> tuple[object, str]:
    total = int(str(values["a"])) + int(str(values["b"]))
    return _number_result(rng, total, "sum", "answer"), f"The result is {total}."


def _product(rng: random.Random, values: Values) -> tuple[object, str]:
    product = int(str(values["a"])) * int(str(values["b"]))
    return _number_result(rng, product, "product", "answer"), f"The result is {product}."


def _converted(rng: random.Random, values: Values) -> tuple[object, str]:
    amount = round(rng.uniform(1, 900), rng.choice((0, 1, 2)))
    number: int | float = int(amount) if amount == int(amount) else amount
    result = _number_result(rng, number, "amount", "converted")
    return result, f"{values['amount']} {values['from']} is {number} {values['to']}."


def _found(rng: random.Random, values: Values) -> tuple[object, str]:
    text = phrase(rng, 2, 6)
    return rng.choice((text, {rng.choice(("result", "text", "answer")): text}, {"results": [text]})), f"I found this: {text}."


def _sent(rng: random.Random, values: Values) -> tuple[object, str]:
    status = rng.choice(("ok", "sent", "done"))
    return rng.choice((status, {"status": status}, {"success": True})), f"I sent the message to {values['to']}."


def _timer(rng: random.Random, values: Values) -> tuple[object, str]:
    status = rng.choice(("ok", "started", "done"))
    return rng.choice((status, {"status": status})), f"The timer is set to {values['minutes']} minutes."


def _price(rng: random.Random, values: Values) -> tuple[object, str]:
    price = round(rng.uniform(5, 900), 2)
    return _number_result(rng, price, "price"), f"The price of {values['symbol']} is {price}."


def _translated(rng: random.Random, values: Values) -> tuple[object, str]:
    text = phrase(rng, 1, 3) if rng.random() < 0.5 else made_up_name(rng).lower()
    return rng.choice((text, {rng.choice(("translation", "text", "result")): text})), f"In {values['language']}: {text}"


def _light(rng: random.Random, values: Values) -> tuple[object, str]:
    return rng.choice(("ok", {"status": "ok"}, {"success": True})), f"The light in the {values['room']} is {values['state']}."


def _date(rng: random.Random, values: Values) -> tuple[object, str]:
    date = f"{rng.randint(2020, 2035)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return rng.choice((date, {"date": date})), f"Today is {date}."


def _order_status(rng: random.Random, values: Values) -> tuple[object, str]:
    status = rng.choice(("shipped", "delivered", "pending", "cancelled", "paid"))
    return rng.choice((status, {"status": status}, {"order_status": status})), f"Order {values['id']} is {status}."


def _two_numbers(rng: random.Random) -> Values:
    top = rng.choice((20, 100, 1000))
    return {"a": rng.randint(0, top), "b": rng.randint(0, top)}


def _exchange_values(rng: random.Random) -> Values:
    source, target = rng.sample(_CURRENCIES, 2)
    return {"amount": rng.randint(1, 999), "from": source, "to": target}


_CITY = Parameter(
    "city", ("city", "city", "location", "place", "town", "city_name"), "string",
    ("The city", "Name of the city", "The name of the city", "City name, e.g. Paris", "The city and country", ""),
)  # fmt: skip
_FIRST = Parameter("a", ("a", "a", "x", "first", "num1"), "integer", ("The first number", "First number", ""))
_SECOND = Parameter("b", ("b", "b", "y", "second", "num2"), "integer", ("The second number", "Second number", ""))

FAMILIES: tuple[Family, ...] = (
    Family(
        ("get_weather", "get_weather", "get_current_weather", "weather", "fetch_weather"),
        ("Get the weather in a city", "Get the current weather", "Get the current weather in a given location",
         "Returns the weather of a city", "Look up the weather for a place", ""),
        (_CITY,),
        ("what is the weather in {city}?", "how is the weather in {city}?", "what's the weather like in {city}?",
         "weather in {city}?", "tell me the weather in {city}.", "is it raining in {city}?", "how warm is it in {city}?",
         "what is the weather like in {city} today?", "is it cold in {city}?", "what is the temperature in {city}?",
         "{city}的天气怎么样？", "can you check the weather in {city}?", "get the weather in {city}.",
         "I need the weather for {city}.", "what's the weather in {city} right now?", "check the weather for {city}."),
        ("how is the weather today in {city}?", "is it warm in {city}?", "can you tell me the weather in {city}?"),
        lambda rng: {"city": _city(rng)}, _weather,
    ),
    Family(
        ("get_time", "get_current_time", "current_time", "time_in_city", "local_time"),
        ("Get the current time in a city", "Returns the local time of a place", "Current time", "Tell the time in a city", ""),
        (_CITY,),
        ("what time is it in {city}?", "what is the time in {city}?", "tell me the time in {city}.", "time in {city}?",
         "what's the time in {city} now?", "how late is it in {city}?", "give me the local time in {city}.",
         "{city}现在几点？", "what is the current time in {city}?", "do you know what time it is in {city}?"),
        ("what is the local time in {city}?", "can you tell me the time in {city}?"),
        lambda rng: {"city": _city(rng)}, _time,
    ),
    Family(
        ("add", "add", "add_numbers", "sum", "plus"),
        ("Add two numbers", "Adds two integers", "Returns the sum of two numbers", "Add a and b", ""),
        (_FIRST, _SECOND),
        ("what is {a} + {b}?", "what is {a} plus {b}?", "add {a} and {b}.", "what is the sum of {a} and {b}?", "{a} + {b}?",
         "how much is {a} plus {b}?", "calculate {a} + {b}.", "compute {a} plus {b}.", "use the tool to add {a} and {b}.",
         "please add {a} and {b}."),
        ("compute the sum of {a} and {b}.", "can you calculate {a} + {b}?"),
        _two_numbers, _sum,
    ),
    Family(
        ("multiply", "multiply_numbers", "product", "times", "mul"),
        ("Multiply two numbers", "Multiplies two integers", "Returns the product of two numbers", ""),
        (_FIRST, _SECOND),
        ("what is {a} * {b}?", "what is {a} times {b}?", "multiply {a} by {b}.", "how much is {a} times {b}?", "{a} * {b}?",
         "multiply {a} and {b}.", "what is the product of {a} and {b}?", "calculate {a} times {b}."),
        ("calculate {a} * {b}.", "compute {a} times {b}."),
        _two_numbers, _product,
    ),
    Family(
        ("convert_currency", "currency", "exchange", "convert_money", "exchange_money"),
        ("Convert an amount of money", "Converts money from one currency to another", "Currency conversion", ""),
        (Parameter("amount", ("amount", "amount", "value"), "number", ("The amount", "How much", "")),
         Parameter("from", ("from", "from_currency", "source"), "string", ("Currency to convert from", "Source currency", "")),
         Parameter("to", ("to", "to_currency", "target"), "string", ("Currency to convert to", "Target currency", ""))),
        ("convert {amount} {from} to {to}.", "how much is {amount} {from} in {to}?", "what is {amount} {from} in {to}?",
         "change {amount} {from} to {to}.", "exchange {amount} {from} for {to}.", "{amount} {from} in {to}?",
         "I have {amount} {from}. How much is it in {to}?", "please convert {amount} {from} into {to}."),
        ("can you convert {amount} {from} to {to}?", "how many {to} is {amount} {from}?"),
        _exchange_values, _converted,
    ),
    Family(
        ("search", "web_search", "search_web", "search_documents", "find"),
        ("Search the web", "Searches documents", "Find pages about a query", "Search for a text", ""),
        (Parameter("query", ("query", "query", "q", "text"), "string", ("The search query", "What to search for", "")),),
        ("search for {query}.", 'search for "{query}".', "search the web for {query}.", "look up {query}.",
         'please search for "{query}".', "find pages about {query}.", "can you search for {query}?"),
        ("please look up {query}.", "can you find pages about {query}?"),
        lambda rng: {"query": phrase(rng, 1, 4)}, _found,
    ),
    Family(
        ("send_message", "send_email", "message", "send_text"),
        ("Send a message to a person", "Sends a text to someone", "Write a message", ""),
        (Parameter("to", ("to", "recipient", "person"), "string", ("Who gets the message", "The recipient", "")),
         Parameter("text", ("text", "message", "body"), "string", ("The text to send", "The message", ""))),
        ('send "{text}" to {to}.', 'send {to} the message "{text}".', 'write "{text}" to {to}.', 'tell {to} "{text}".',
         'please send "{text}" to {to}.', 'message {to}: "{text}"'),
        ('can you send "{text}" to {to}?', 'please tell {to} "{text}".'),
        lambda rng: {"to": rng.choice(_PEOPLE), "text": phrase(rng, 1, 4)}, _sent,
    ),
    Family(
        ("set_timer", "start_timer", "timer", "set_alarm"),
        ("Set a timer", "Starts a timer of some minutes", "Timer in minutes", ""),
        (Parameter("minutes", ("minutes", "minutes", "duration", "length"), "integer", ("Minutes", "Number of minutes", "")),),
        ("set a timer for {minutes} minutes.", "start a timer of {minutes} minutes.", "timer for {minutes} minutes.",
         "please set a timer for {minutes} minutes.", "wake me in {minutes} minutes.", "set the timer to {minutes} minutes.",
         "remind me in {minutes} minutes."),
        ("can you set a timer for {minutes} minutes?", "start the timer for {minutes} minutes."),
        lambda rng: {"minutes": rng.randint(2, 90)}, _timer,
    ),
    Family(
        ("get_stock_price", "stock_price", "get_quote", "stock"),
        ("Get the price of a stock", "Returns the stock price of a symbol", "Stock price lookup", ""),
        (Parameter("symbol", ("symbol", "ticker", "stock"), "string", ("The stock symbol", "Ticker symbol", "")),),
        ("what is the stock price of {symbol}?", "price of {symbol}?", "how much is {symbol} stock?", "what is the price of {symbol}?",
         "tell me the stock price of {symbol}.", "get the price of {symbol}.", "what does {symbol} stock cost?"),
        ("can you get the stock price of {symbol}?", "what is {symbol} stock at?"),
        lambda rng: {"symbol": rng.choice(_SYMBOLS)}, _price,
    ),
    Family(
        ("translate", "translate_text", "translation"),
        ("Translate a text", "Translates text to another language", "Translate words", ""),
        (Parameter("text", ("text", "text", "phrase"), "string", ("The text to translate", "Text", "")),
         Parameter("language", ("language", "target_language", "to"), "string", ("The target language", "Language", ""))),
        ('translate "{text}" to {language}.', 'how do you say "{text}" in {language}?', 'what is "{text}" in {language}?',
         'translate "{text}" into {language}.', 'say "{text}" in {language}.', 'please translate "{text}" to {language}.'),
        ('can you translate "{text}" to {language}?', 'how do I say "{text}" in {language}?'),
        lambda rng: {"text": phrase(rng, 1, 4), "language": rng.choice(_LANGUAGES)}, _translated,
    ),
    Family(
        ("set_light", "light", "switch_light", "control_light"),
        ("Turn a light on or off", "Switches the light of a room", "Control the lights", ""),
        (Parameter("room", ("room", "room", "place"), "string", ("The room", "Name of the room", "")),
         Parameter("state", ("state", "state", "mode"), "string", ("on or off", "The new state", ""))),
        ("turn {state} the light in the {room}.", "switch the light in the {room} {state}.", "{room} light {state}.",
         "turn the {room} light {state}.", "please turn {state} the {room} light.", "lights {state} in the {room}."),
        ("can you turn {state} the light in the {room}?", "switch {state} the {room} light."),
        lambda rng: {"room": rng.choice(_ROOMS), "state": rng.choice(("on", "off"))}, _light,
    ),
    Family(
        ("get_date", "today", "current_date", "get_today"),
        ("Get the date of today", "Returns the current date", "Current date", ""),
        (),
        ("what is the date today?", "which date is it?", "what day is it today?", "tell me the date.", "today's date?",
         "what is today's date?", "which date do we have today?"),
        ("can you tell me the date?", "what date is it?"),
        lambda rng: {}, _date,
    ),
    Family(
        ("get_order_status", "order_status", "get_order", "track_order"),
        ("Get the status of an order", "Looks up an order by its number", "Order status", ""),
        (Parameter("id", ("order_id", "id", "number"), "integer", ("The order number", "Order id", "")),),
        ("where is my order {id}?", "what is the status of order {id}?", "check order {id}.", "order {id} status?",
         "tell me the status of order {id}.", "did you send order {id}?", "track order {id}."),
        ("can you check order {id}?", "what happened to order {id}?"),
        lambda rng: {"id": rng.randint(10, 9999)}, _order_status,
    ),
)  # fmt: skip
