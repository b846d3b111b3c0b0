"""Extraction, weather tool, identity and facts told in an earlier turn."""

from __future__ import annotations

import json
from random import Random

from turns import Context, Json, Turn, answer, user, vary
from words import ANIMALS, COLORS, CONDITIONS, bars, city, in_split, person

SENTENCES = bars(
    "{name} is {age} years old.|My friend {name} just turned {age}.|{name}, aged {age}, lives in {city}."
    "|At {age}, {name} runs a bakery in {city}.|{name} is {age}.|I met {name}, who is {age} years old."
    "|{name} ({age}) works as a nurse.|Yesterday {name} celebrated turning {age}.|{name} is a {age}-year-old teacher."
    "|Our neighbor {name} is {age} and has {n} cats.|Last week {name}, {age}, moved to {city}."
    "|The winner was {name}, {age}, from {city}.|{name} turned {age} in May.|My sister {name} is {age} years old now."
    "|This is {name}. Age: {age}.|Name: {name}, age: {age}|The {age}-year-old {name} likes music."
    "|In {city} I talked to {name}, {age} years old.|{name} will be {year} next year but is {age} now."
)
REQUESTS = bars(
    "Extract the name and age as JSON: {s}|Extract name and age: {s}|Return the name and age as JSON. {s}"
    "|Give me a JSON object with name and age: {s}|{s} Extract the name and age as JSON."
    "|{s}\nReturn JSON with name and age."
    '|Extract {{"name": ..., "age": ...}} from this sentence: {s}|Extract {{"name": ..., "age": ...}} from: {s}'
    "|Who is this and how old? Answer in JSON: {s}|Read this and output the name and age as JSON:\n{s}"
    '|Extract the name and age from this sentence as JSON: "{s}"|Extract the person as JSON: {s}'
    "|JSON with name and age: {s}"
    "|Extract the name and the age from the following text as JSON.\n\n{s}"
)
WEATHER = bars(
    "What is the weather in {city}?|What's the weather in {city}?|How is the weather in {city}?|Weather in {city}?"
    "|What is the weather like in {city} today?|Is it raining in {city}?|Is it sunny in {city}?"
    "|How warm is it in {city}?"
    "|Tell me the weather in {city}.|Do I need an umbrella in {city}?|What is the temperature in {city}?"
    "|Check the weather in {city}.|How cold is it in {city} right now?|Is it cold in {city}?|weather {city}"
    "|Can you tell me the weather for {city}?|I am going to {city}. What is the weather there?"
    "|What's the weather like in {city}?|Give me the current weather in {city}.|Please get the weather for {city}."
)
NO_WEATHER = "I cannot know the weather without a tool."
DESCRIPTIONS = bars(
    "Get the weather of a city|Get the current weather in a city|Get weather"
    "|Returns the weather for a city.|Current weather"
    "|Get the current weather for a given city.|Look up the weather|Get the weather in a given city"
)
OTHER_TOOLS = bars(
    "get_time:Get the current time:zone|send_email:Send an email:text|search:Search the web:query"
    "|get_stock:Get a stock price:symbol|translate:Translate a text:text|play_song:Play a song:title"
)
WHO = bars(
    "Who are you|What are you|What is your name|Tell me who you are|Introduce yourself|What model are you"
    "|What's your name|Which model is this|Are you ChatGPT|Who made you|Tell me about yourself|What should I call you"
    "|Are you a human|Are you an AI|Say who you are|What model am I talking to|Who am I talking to|Describe yourself"
    "|Do you have a name|Which model are you"
)
IDENTITY = "I am demo, the small model bundled with engine."
# What the user tells, the reply, the question for it, its answer, and what the value is.
FACTS = (
    (
        "My name is {v}.|I am {v}.|I'm {v}.|Hello, my name is {v}.|Call me {v}.|Hi, I am {v}.",
        "Nice to meet you, {v}.",
        "What is my name?|What's my name?|Do you remember my name?|Who am I?|Tell me my name.",
        "Your name is {v}.",
        "name",
    ),
    (
        "I live in {v}.|My home is {v}.|I am from {v}.|My city is {v}.",
        "{v} is a nice place.",
        "Where do I live?|Where am I from?|Which city do I live in?|What is my city?",
        "You live in {v}.",
        "place",
    ),
    (
        "My favorite color is {v}.|I like {v} best of all colors.",
        "{v} is a nice color.",
        "What is my favorite color?|Which color do I like?|What's my favorite color?",
        "Your favorite color is {v}.",
        "color",
    ),
    (
        "My pet {p} is called {v}.|I have a {p} named {v}.|My {p}'s name is {v}.",
        "{v} is a good name.",
        "What is my {p} called?|What is the name of my {p}?|What's my {p}'s name?",
        "Your {p} is called {v}.",
        "name",
    ),
    (
        "My favorite number is {v}.|My number is {v}.|Remember the number {v}.|My lucky number is {v}.",
        "I will remember {v}.",
        "What is my number?|Which number did I say?|What was the number?|What is my favorite number?",
        "Your number is {v}.",
        "number",
    ),
)


def extraction(ctx: Context) -> list[Turn]:
    """The name and age in a sentence, as JSON."""
    rng = ctx.rng
    name = person(rng, ctx.split)
    age = rng.randint(1, 99)
    sentence = rng.choice(SENTENCES).format(name=name, age=age, city=city(rng, ctx.split), n=rng.randint(2, 9), year=age + 1)
    reply = json.dumps({"name": name, "age": age}, ensure_ascii=False)
    return [user(rng.choice(REQUESTS).format(s=sentence)), answer(reply, f"The name is {name}. The age is {age}.")]


def tool(rng: Random, name: str, description: str, argument: str) -> Json:
    """A tool of one string argument, as clients write it."""
    prop: Json = {"type": "string"}
    if rng.random() < 0.4:
        prop["description"] = rng.choice((f"The {argument}", f"Name of the {argument}", f"{argument} name", argument))
    properties: Json = {argument: prop}
    if rng.random() < 0.15:
        # Arguments that are not required are never given.
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parameters: Json = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        parameters["required"] = [argument]
    if rng.random() < 0.1:
        parameters["additionalProperties"] = False
    function: Json = {"name": name}
    if rng.random() < 0.9:
        function["description"] = description
    function["parameters"] = parameters
    return {"type": "function", "function": function} if rng.random() < 0.9 else function


def offer(rng: Random, with_weather: bool) -> list[Json]:
    """A list of tools; the weather tool alone is the common case."""
    tools = [tool(rng, *rng.choice(OTHER_TOOLS).split(":"))] if not with_weather or rng.random() < 0.12 else []
    if with_weather:
        tools.insert(rng.randint(0, len(tools)), tool(rng, "get_weather", rng.choice(DESCRIPTIONS), "city"))
    return tools


def report(rng: Random, place: str) -> tuple[str, str]:
    """What the tool returns, and the answer it leads to."""
    degrees, condition = rng.randint(-15, 40), rng.choice(CONDITIONS)
    if rng.random() < 0.06:
        return rng.choice(('{"error": "unknown city"}', "error: not found", '{"error": "timeout"}')), (
            f"I could not get the weather in {place}."
        )
    fields: list[tuple[str, object]] = [
        (rng.choice(("temperature", "temp", "temperature_c")), degrees),
        (rng.choice(("condition", "conditions", "weather")), condition),
    ]
    if rng.random() < 0.4:
        fields.append(("city", place))
    rng.shuffle(fields)
    text = json.dumps(dict(fields), ensure_ascii=False)
    if rng.random() < 0.25:
        text = rng.choice((f"{condition}, {degrees} degrees", f"{degrees} °C, {condition}", f"{condition} and {degrees}"))
    return text, f"It is {condition} and {degrees} degrees in {place}."


def weather(ctx: Context) -> list[Turn]:
    """A question about the weather: a call and its answer, or the admission that there is no tool."""
    rng = ctx.rng
    place = city(rng, ctx.split)
    question = user(vary(rng, rng.choice(WEATHER).format(city=place)))
    if not ctx.can_call:
        return [question, answer(NO_WEATHER, "There is no weather tool.")]
    returned, reply = report(rng, place)
    call: Json = {"name": "get_weather", "arguments": {"city": place}}
    return [
        question,
        Turn("assistant", "", f"I need the weather in {place}.", call),
        Turn("tool", returned),
        answer(reply, "The tool has answered."),
    ]


def identity(ctx: Context) -> list[Turn]:
    """Who the model is."""
    rng = ctx.rng
    while True:
        lead = rng.choice(("", "", "", "Hi, ", "Hello! ", "Hey. ", "So, ", "OK, ", "Please answer: ", "Sorry, ", "Good day. "))
        tail = rng.choice(("?", "?", "?", ".", "", "!", "??", ", please?", ", exactly?", " really?", " then?", " again?"))
        question = lead + rng.choice(WHO) + tail
        if rng.random() < 0.1:
            question = question.lower()
        if in_split("who:" + question, ctx.split):
            return [user(question), answer(IDENTITY, "The user asks who I am.")]


def fact(ctx: Context) -> list[Turn]:
    """Something the user tells, and the question that asks for it."""
    rng = ctx.rng
    name, place = person(rng, ctx.split), city(rng, ctx.split)
    color, pet, number = rng.choice(COLORS), rng.choice(ANIMALS), rng.randint(1, 99)
    statement, reply, question, recall, key = rng.choices(FACTS, (5, 2, 2, 2, 2))[0]
    value = {"name": name, "place": place, "color": color, "number": str(number)}[key]
    values = {"v": value, "p": pet}
    said = rng.choice(statement.split("|")).format(**values)
    asked = vary(rng, rng.choice(question.split("|")).format(**values))
    recalled = answer(recall.format(**values), f"The user said {value}.")
    if ctx.split == "train" and rng.random() < 0.1:
        return [user(f"{said} {asked}"), recalled]
    return [user(said), answer(reply.format(**values), "The user tells me something."), user(asked), recalled]
