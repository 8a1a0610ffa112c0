"""The families of tools that the demo model learns to call: names, schemas, questions, results and final answers."""

# ruff: noqa: RUF001 - Chinese punctuation is meant

import random
from collections.abc import Callable
from dataclasses import dataclass

from demo_model.corpus import tool_values as tool
from demo_model.corpus.tool_values import Values
from demo_model.corpus.words import phrase


@dataclass(frozen=True)
class Parameter:
    """One parameter of a tool family: what it is called, its JSON type, and how its schema may describe it."""

    field: str
    names: tuple[str, ...]
    type: str
    descriptions: tuple[str, ...]
    choices: tuple[str, ...] = ()


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


_CITY = Parameter(
    "city", ("city", "city", "location", "place", "town", "city_name"), "string",
    ("The city", "Name of the city", "The name of the city", "City name, e.g. Paris", "The city and country", ""),
)  # fmt: skip
_UNIT = Parameter(
    "unit", ("unit", "unit", "units"), "string", ("The unit", "celsius or fahrenheit", "Temperature unit", ""),
    ("celsius", "fahrenheit"),
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
         "weather in {city}?", "tell me the weather in {city}.", "is it raining in {city}?",
         "how warm is it in {city}?",
         "what is the weather like in {city} today?", "is it cold in {city}?", "what is the temperature in {city}?",
         "{city}的天气怎么样？", "can you check the weather in {city}?", "get the weather in {city}.",
         "I need the weather for {city}.", "what's the weather in {city} right now?", "check the weather for {city}."),
        ("how is the weather today in {city}?", "is it warm in {city}?", "can you tell me the weather in {city}?"),
        lambda rng: {"city": tool.city_name(rng)}, tool.weather,
    ),
    Family(
        ("get_weather", "get_current_weather", "weather", "fetch_weather"),
        ("Get the current weather in a given location", "Get the weather in a city", "Returns the weather of a city",
         ""),
        (_CITY, _UNIT),
        ("what is the weather in {city} in {unit}?", "how warm is it in {city} in {unit}?",
         "weather in {city} in {unit}?",
         "what is the temperature in {city} in {unit}?", "tell me the weather in {city} in {unit}.",
         "what's the weather like in {city}? Use {unit}.", "how is the weather in {city}? Answer in {unit}."),
        ("how cold is it in {city} in {unit}?", "tell me the temperature in {city} in {unit}."),
        lambda rng: {"city": tool.city_name(rng), "unit": rng.choice(("celsius", "fahrenheit"))}, tool.weather,
    ),
    Family(
        ("get_time", "get_current_time", "current_time", "time_in_city", "local_time"),
        ("Get the current time in a city", "Returns the local time of a place", "Current time",
         "Tell the time in a city", ""),
        (_CITY,),
        ("what time is it in {city}?", "what is the time in {city}?", "tell me the time in {city}.", "time in {city}?",
         "what's the time in {city} now?", "how late is it in {city}?", "give me the local time in {city}.",
         "{city}现在几点？", "what is the current time in {city}?", "do you know what time it is in {city}?"),
        ("what is the local time in {city}?", "can you tell me the time in {city}?"),
        lambda rng: {"city": tool.city_name(rng)}, tool.local_time,
    ),
    Family(
        ("add", "add", "add_numbers", "sum", "plus"),
        ("Add two numbers", "Adds two integers", "Returns the sum of two numbers", "Add a and b", ""),
        (_FIRST, _SECOND),
        ("what is {a} + {b}?", "what is {a} plus {b}?", "add {a} and {b}.", "what is the sum of {a} and {b}?",
         "{a} + {b}?",
         "how much is {a} plus {b}?", "calculate {a} + {b}.", "compute {a} plus {b}.",
         "use the tool to add {a} and {b}.",
         "please add {a} and {b}."),
        ("compute the sum of {a} and {b}.", "can you calculate {a} + {b}?"),
        tool.two_numbers, tool.total,
    ),
    Family(
        ("multiply", "multiply_numbers", "product", "times", "mul"),
        ("Multiply two numbers", "Multiplies two integers", "Returns the product of two numbers", ""),
        (_FIRST, _SECOND),
        ("what is {a} * {b}?", "what is {a} times {b}?", "multiply {a} by {b}.", "how much is {a} times {b}?",
         "{a} * {b}?",
         "multiply {a} and {b}.", "what is the product of {a} and {b}?", "calculate {a} times {b}."),
        ("calculate {a} * {b}.", "compute {a} times {b}."),
        tool.two_numbers, tool.product,
    ),
    Family(
        ("convert_currency", "currency", "exchange", "convert_money", "exchange_money"),
        ("Convert an amount of money", "Converts money from one currency to another", "Currency conversion", ""),
        (Parameter("amount", ("amount", "amount", "value"), "number", ("The amount", "How much", "")),
         Parameter("from", ("from", "from_currency", "source"), "string", ("Currency to convert from",
                                                                           "Source currency", "")),
         Parameter("to", ("to", "to_currency", "target"), "string", ("Currency to convert to", "Target currency",
                                                                     ""))),
        ("convert {amount} {from} to {to}.", "how much is {amount} {from} in {to}?",
         "what is {amount} {from} in {to}?",
         "change {amount} {from} to {to}.", "exchange {amount} {from} for {to}.", "{amount} {from} in {to}?",
         "I have {amount} {from}. How much is it in {to}?", "please convert {amount} {from} into {to}.",
         "how many {to} do I get for {amount} {from}?",
         "how many {to} are {amount} {from}?", "how much {to} is {amount} {from}?",
         "give me {amount} {from} in {to}."),
        ("can you convert {amount} {from} to {to}?", "how many {to} is {amount} {from}?"),
        tool.exchange_values, tool.converted,
    ),
    Family(
        ("search", "web_search", "search_web", "search_documents", "find"),
        ("Search the web", "Searches documents", "Find pages about a query", "Search for a text", ""),
        (Parameter("query", ("query", "query", "q", "text"), "string", ("The search query", "What to search for",
                                                                        "")),),
        ("search for {query}.", 'search for "{query}".', "search the web for {query}.", "look up {query}.",
         'please search for "{query}".', "find pages about {query}.", "can you search for {query}?"),
        ("please look up {query}.", "can you find pages about {query}?"),
        lambda rng: {"query": phrase(rng, 1, 4)}, tool.found,
    ),
    Family(
        ("send_message", "send_email", "message", "send_text"),
        ("Send a message to a person", "Sends a text to someone", "Write a message", ""),
        (Parameter("to", ("to", "recipient", "person"), "string", ("Who gets the message", "The recipient", "")),
         Parameter("text", ("text", "message", "body"), "string", ("The text to send", "The message", ""))),
        ('send "{text}" to {to}.', 'send {to} the message "{text}".', 'write "{text}" to {to}.', 'tell {to} "{text}".',
         'please send "{text}" to {to}.', 'message {to}: "{text}"'),
        ('can you send "{text}" to {to}?', 'please tell {to} "{text}".'),
        lambda rng: {"to": rng.choice(tool.PEOPLE), "text": phrase(rng, 1, 4)}, tool.sent,
    ),
    Family(
        ("set_timer", "start_timer", "timer", "set_alarm"),
        ("Set a timer", "Starts a timer of some minutes", "Timer in minutes", ""),
        (Parameter("minutes", ("minutes", "minutes", "duration", "length"), "integer", ("Minutes", "Number of minutes",
                                                                                        "")),),
        ("set a timer for {minutes} minutes.", "start a timer of {minutes} minutes.", "timer for {minutes} minutes.",
         "please set a timer for {minutes} minutes.", "wake me in {minutes} minutes.",
         "set the timer to {minutes} minutes.",
         "remind me in {minutes} minutes."),
        ("can you set a timer for {minutes} minutes?", "start the timer for {minutes} minutes."),
        lambda rng: {"minutes": rng.randint(2, 90)}, tool.timer,
    ),
    Family(
        ("get_stock_price", "stock_price", "get_quote", "stock"),
        ("Get the price of a stock", "Returns the stock price of a symbol", "Stock price lookup", ""),
        (Parameter("symbol", ("symbol", "ticker", "stock"), "string", ("The stock symbol", "Ticker symbol", "")),),
        ("what is the stock price of {symbol}?", "price of {symbol}?", "how much is {symbol} stock?",
         "what is the price of {symbol}?",
         "tell me the stock price of {symbol}.", "get the price of {symbol}.", "what does {symbol} stock cost?"),
        ("can you get the stock price of {symbol}?", "what is {symbol} stock at?"),
        lambda rng: {"symbol": rng.choice(tool.SYMBOLS)}, tool.price,
    ),
    Family(
        ("translate", "translate_text", "translation"),
        ("Translate a text", "Translates text to another language", "Translate words", ""),
        (Parameter("text", ("text", "text", "phrase"), "string", ("The text to translate", "Text", "")),
         Parameter("language", ("language", "target_language", "to"), "string", ("The target language", "Language",
                                                                                 ""))),
        ('translate "{text}" to {language}.', 'how do you say "{text}" in {language}?',
         'what is "{text}" in {language}?',
         'translate "{text}" into {language}.', 'say "{text}" in {language}.',
         'please translate "{text}" to {language}.'),
        ('can you translate "{text}" to {language}?', 'how do I say "{text}" in {language}?'),
        lambda rng: {"text": phrase(rng, 1, 4), "language": rng.choice(tool.LANGUAGES)}, tool.translated,
    ),
    Family(
        ("set_light", "light", "switch_light", "control_light"),
        ("Turn a light on or off", "Switches the light of a room", "Control the lights", ""),
        (Parameter("room", ("room", "room", "place"), "string", ("The room", "Name of the room", "")),
         Parameter("state", ("state", "state", "mode"), "string", ("on or off", "The new state", ""), ("on", "off"))),
        ("turn {state} the light in the {room}.", "switch the light in the {room} {state}.", "{room} light {state}.",
         "turn the {room} light {state}.", "please turn {state} the {room} light.", "lights {state} in the {room}."),
        ("can you turn {state} the light in the {room}?", "switch {state} the {room} light."),
        lambda rng: {"room": rng.choice(tool.ROOMS), "state": rng.choice(("on", "off"))}, tool.light,
    ),
    Family(
        ("get_date", "today", "current_date", "get_today"),
        ("Get the date of today", "Returns the current date", "Current date", ""),
        (),
        ("what is the date today?", "which date is it?", "what day is it today?", "tell me the date.", "today's date?",
         "what is today's date?", "which date do we have today?"),
        ("can you tell me the date?", "what date is it?"),
        lambda rng: {}, tool.date,
    ),
    Family(
        ("get_order_status", "order_status", "get_order", "track_order"),
        ("Get the status of an order", "Looks up an order by its number", "Order status", ""),
        (Parameter("id", ("order_id", "id", "number"), "integer", ("The order number", "Order id", "")),),
        ("where is my order {id}?", "what is the status of order {id}?", "check order {id}.", "order {id} status?",
         "tell me the status of order {id}.", "did you send order {id}?", "track order {id}."),
        ("can you check order {id}?", "what happened to order {id}?"),
        lambda rng: {"id": rng.randint(10, 9999)}, tool.order_status,
    ),
)  # fmt: skip
