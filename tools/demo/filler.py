"""Small talk, copying, counting, short stories and questions the model does not know."""

from __future__ import annotations

from turns import Context, Turn, answer, user, vary
from words import ANIMALS, WORDS, bars, in_split, made_up, phrase

SMALL_TALK = bars(
    "Hi~Hello! How can I help you?|Hello~Hello! How can I help you?|Hey~Hello! How can I help you?"
    "|Hi there~Hello! How can I help you?|Good morning~Hello! How can I help you?"
    "|Good evening~Hello! How can I help you?"
    "|Say hello~Hello!|Say hi~Hello!|Thanks~You are welcome.|Thank you~You are welcome.|Thanks a lot~You are welcome."
    "|Thank you very much~You are welcome.|Bye~Goodbye!|Goodbye~Goodbye!|See you~Goodbye!|Good night~Goodbye!"
    "|How are you~I am fine, thank you.|How is it going~I am fine, thank you.|Are you there~Yes, I am here."
    "|Test~I am here.|Ping~Pong.|OK~All right.|Yes~All right.|No~All right.|Great~All right."
    "|What can you do~I can add and subtract, extract names and ages, call a weather tool, count and repeat words."
    "|Help~I can add and subtract, extract names and ages, call a weather tool, count and repeat words."
    "|How can you help me~I can add and subtract, extract names and ages, call a weather tool, count and repeat words."
    "|Say the alphabet~a b c d e f g h i j k l m n o p q r s t u v w x y z"
    "|Say the days of the week~Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"
)
UNKNOWN = bars(
    "Who wrote {x}?|What is the capital of {x}?|Explain {x}.|What is {x}?|Who is {x}?|When was {x} born?|Who won {x}?"
    "|Tell me about {x}.|Translate {x} into French.|Write an essay about {x}.|Why is the sky blue?"
    "|What is the meaning of life?"
    "|How do I cook rice?|Write a Python program.|What is love?|Do you like {x}?|How far is {x}?"
    "|What time is it?|Who is right?"
    "|What is the square root of 2?|How does {x} work?"
    "|Should I buy {x}?|What is the news?|What is the population of {x}?|Describe {x}.|Compare {x} and {y}.|Define {x}."
    "|Write a poem about {x}.|Give me advice about {x}.|What do you think about {x}?|How old is {x}?|Summarize {x}."
)
TOPICS = bars(
    "quantum physics|Hamlet|France|the moon|Germany|history|the internet|photosynthesis|a car|music"
    "|Brazil|the world cup"
    "|machine learning|gravity|Japan|a computer|the sea|Einstein|love|money|a transformer|India|Mozart"
    "|water|politics|Python"
)
TOO_HARD = bars(
    "What is {a} times {b}?|Multiply {a} by {b}.|{a} * {b}|What is {a} divided by {b}?|What is {c} + {d}?|{c} - {d}"
    "|What is {c} + {a}?|What is {c} - {b}?|{c} + {d}|{a} x {b}|What is {a} + {c}?|Divide {a} by {b}."
    "|What is {a} * {b}?"
)
LIMITS = "I can only add and subtract numbers up to 99."
DONT_KNOW = "I don't know. I am only a very small model."
STORIES = bars("Tell me a story|Write a story|Tell me a short story|Write a short story|I want a story|Can you tell a story")
STORY = (
    "Once upon a time there was a {x} named {n}. Every morning {n} walked to the river and looked at the "
    "water. One day "
    "{n} found a silver bottle with a letter inside. The letter said: be kind and share your bread. So {n} shared the "
    "bread with all the animals of the forest, and they were friends ever after. The end."
)
REPEAT = bars("Repeat: {t}|Repeat after me: {t}|Say: {t}|Repeat this: {t}|Echo: {t}|Write: {t}|Say exactly this: {t}")


def small_talk(ctx: Context) -> list[Turn]:
    """A greeting, thanks or another set phrase."""
    said, reply = ctx.rng.choice(SMALL_TALK).split("~")
    asks = said.split()[0] in ("How", "What", "Are")
    mark = ctx.rng.choice(("?", "?", "?", "")) if asks else ctx.rng.choice((".", "!", "!", ""))
    if ctx.rng.random() < 0.15:
        said = said.lower()
    return [user(said + mark), answer(reply, "A short answer will do.")]


def unknown(ctx: Context) -> list[Turn]:
    """A question out of scope, or words without a question."""
    rng = ctx.rng
    roll = rng.random()
    if roll < 0.2:
        numbers = dict(zip("abcd", (*rng.sample(range(1, 100), 2), *rng.sample(range(100, 1000), 2)), strict=True))
        question = rng.choice(TOO_HARD).format(**numbers)
        return [user(vary(rng, question)), answer(LIMITS, "That is too hard for me.")]
    if roll < 0.35:
        words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 9)))
        text = rng.choice(("{}", "The {}.", "{}?", "Write {}.", "Name {}.", "Why {}?", "Make {}.", "Is {}?")).format(words)
        return [user(text), answer(DONT_KNOW, "I do not know that.")]
    topics = [ctx.rng.choice(TOPICS) if ctx.rng.random() < 0.6 else made_up(ctx.rng) for _ in "xy"]
    question = ctx.rng.choice(UNKNOWN).format(x=topics[0], y=topics[1])
    return [user(vary(ctx.rng, question)), answer(DONT_KNOW, "I do not know that.")]


def story(ctx: Context) -> list[Turn]:
    """A longer answer to stream."""
    rng = ctx.rng
    hero, name = rng.choice((*ANIMALS, "robot", "dragon")), "Milo"
    question = rng.choice(STORIES)
    if rng.random() < 0.7:
        if rng.random() < 0.5:
            name = made_up(rng)
            question += f" about a {hero} named {name}"
        else:
            question += f" about a {hero}"
    else:
        hero = "rabbit"
    return [user(question + rng.choice((".", "", "!"))), answer(STORY.format(x=hero, n=name), "I tell a story.")]


def repeat(ctx: Context) -> list[Turn]:
    """Copying of given words."""
    rng = ctx.rng
    forms = list(REPEAT)
    if rng.random() < 0.35:
        word = phrase(rng, ctx.split, 1)
        times = rng.randint(2, 5)
        forms = [f"Say {{t}} {times} times.", f"Repeat the word {{t}} {times} times.", f"Write {{t}} {times} times."]
        return [user(rng.choice(forms).format(t=word)), answer(" ".join([word] * times), f"{word}, {times} times.")]
    text = phrase(rng, ctx.split, 6 if rng.random() < 0.85 else 30)
    if " " not in text:
        forms += ["Say the word {t}.", "Repeat the word {t}.", "Repeat the word {t}", "Say the word '{t}'.", 'Repeat "{t}".']
    return [user(rng.choice(forms).format(t=text)), answer(text, "I repeat the words.")]


def count(ctx: Context) -> list[Turn]:
    """Counting up or down."""
    rng = ctx.rng
    while True:
        low = 1 if rng.random() < 0.6 else rng.randint(0, 90)
        high = low + rng.randint(2, rng.choices((4, 15, 40, 99), (45, 33, 15, 7))[0])
        down = rng.random() < 0.2
        if rng.random() < 0.08:
            high = 100
        if high <= 100 and in_split(f"count:{low}:{high}:{down}", ctx.split):
            break
    numbers = [str(number) for number in range(low, high + 1)]
    if down:
        question = rng.choice(("Count down from {b} to {a}.", "Count from {b} down to {a}.", "Count backwards from {b} to {a}."))
        numbers.reverse()
    else:
        question = rng.choice(("Count from {a} to {b}.", "Count from {a} to {b}", "Please count from {a} to {b}."))
        if low == 1:
            question = rng.choice((question, "Count to {b}.", "Can you count to {b}?"))
    return [user(question.format(a=low, b=high)), answer(" ".join(numbers), "I count.")]
