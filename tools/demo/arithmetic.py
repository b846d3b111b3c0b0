"""Sums and differences of numbers up to 99, with the derivation the model writes when it thinks."""

from __future__ import annotations

from random import Random

from turns import Context, Turn, answer, user, vary
from words import THINGS, Split, bars, in_split

PLUS = bars(
    "What is {a} + {b}?|{a} + {b}|{a}+{b}|{a} + {b} = ?|{a}+{b}=|What's {a} + {b}?|Compute {a} + {b}."
    "|Calculate {a} + {b}."
    "|What is {a} plus {b}?|{a} plus {b}|How much is {a} plus {b}?|How much is {a} + {b}?|Add {a} and {b}."
    "|What is the sum of {a} and {b}?|Sum of {a} and {b}|Tell me {a} plus {b}.|Add {b} to {a}.|Solve {a} + {b}."
    "|What do you get when you add {a} and {b}?|Can you add {a} and {b}?|If I add {b} to {a}, what do I get?"
    "|I have {a} {thing} and get {b} more. How many {thing} do I have?|What does {a} + {b} equal?"
    "|There are {a} {thing} here and {b} there. How many in total?|Give me the result of {a} + {b}."
)
MINUS = bars(
    "What is {a} - {b}?|{a} - {b}|{a}-{b}|{a} - {b} = ?|{a}-{b}=|What's {a} - {b}?|Compute {a} - {b}."
    "|Calculate {a} - {b}."
    "|What is {a} minus {b}?|{a} minus {b}|How much is {a} minus {b}?|How much is {a} - {b}?|Subtract {b} from {a}."
    "|What is the difference of {a} and {b}?|Take {b} away from {a}.|Tell me {a} minus {b}.|Solve {a} - {b}."
    "|What do you get when you subtract {b} from {a}?|Can you subtract {b} from {a}?|Give me the result of {a} - {b}."
    "|If I take {b} from {a}, what do I get?|{a} take away {b}|What does {a} - {b} equal?"
)
FOLLOW_PLUS = bars(
    "and plus {b}?|And plus {b}?|plus {b}?|Now add {b}.|Add {b} to that.|And if you add {b}?|Plus {b}|+ {b}|What is that plus {b}?"
)
FOLLOW_MINUS = bars(
    "and minus {b}?|And minus {b}?|minus {b}?|Now subtract {b}.|Take {b} away from that.|And if you subtract {b}?"
    "|Minus {b}|- {b}|What is that minus {b}?"
)
BRIEFLY = bars(
    "Answer with the number only.|Just the number.|Only the number, please.|Reply with the result only.|Answer briefly."
    "|Give only the number.|Answer in one word.|Do not explain.|Think step by step.|Reply with a number."
)


def derivation(a: int, sign: str, b: int) -> str:
    """The digit-wise steps, units first."""
    if sign == "+":
        units = a % 10 + b % 10
        tens = a // 10 + b // 10 + units // 10
        return f"{a} + {b}\n{a % 10} + {b % 10} = {units}\n{a // 10} + {b // 10} + {units // 10} = {tens}"
    if a < b:
        return f"{a} < {b}, so -({b} - {a})\n" + derivation(b, "-", a)
    borrow = int(a % 10 < b % 10)
    units = a % 10 + 10 * borrow - b % 10
    tens = a // 10 - b // 10 - borrow
    return f"{a} - {b}\n{a % 10 + 10 * borrow} - {b % 10} = {units}\n{a // 10} - {b // 10} - {borrow} = {tens}"


def result(a: int, sign: str, b: int) -> int:
    """The exact value."""
    return a + b if sign == "+" else a - b


def allowed(a: int, sign: str, b: int, split: Split) -> bool:
    """Split by the unordered pair, so that no held-out sum was seen the other way round."""
    return in_split(f"{min(a, b)}{sign}{max(a, b)}", split)


def operands(rng: Random, split: Split) -> tuple[int, str, int]:
    """Mostly two-digit numbers; the held-out questions have nothing else."""
    while True:
        roll = 1.0 if split == "heldout" else rng.random()
        low, high = (0, 9) if roll < 0.06 else (0, 20) if roll < 0.12 else (0, 99) if roll < 0.25 else (10, 99)
        a, sign, b = rng.randint(low, high), rng.choice("+-"), rng.randint(low, high)
        if allowed(a, sign, b, split):
            return a, sign, b


def ask(rng: Random, a: int, sign: str, b: int) -> list[Turn]:
    """A question with its answer."""
    form = rng.choice(PLUS if sign == "+" else MINUS)
    if rng.random() < 0.25:
        form = "What is {a} + {b}?" if sign == "+" else "What is {a} - {b}?"
    question = form.format(a=a, b=b, thing=rng.choice(THINGS))
    if rng.random() < 0.06:
        question += " " + rng.choice(BRIEFLY)
    return [user(vary(rng, question)), answer(str(result(a, sign, b)), derivation(a, sign, b))]


def arithmetic(ctx: Context) -> list[Turn]:
    """One sum or difference."""
    return ask(ctx.rng, *operands(ctx.rng, ctx.split))


def change(ctx: Context, first: int) -> tuple[int, list[Turn]]:
    """A change to the result that the last answer gave."""
    rng = ctx.rng
    while True:
        sign, then = rng.choice("+-"), rng.randint(1, 20 if rng.random() < 0.8 else 99)
        if allowed(first, sign, then, ctx.split):
            break
    form = rng.choice(FOLLOW_PLUS if sign == "+" else FOLLOW_MINUS)
    value = result(first, sign, then)
    return value, [user(form.format(b=then)), answer(str(value), derivation(first, sign, then))]


def follow_up(ctx: Context) -> list[Turn]:
    """A sum or difference, and then a change to its result."""
    while True:
        a, sign, b = operands(ctx.rng, ctx.split)
        value = result(a, sign, b)
        if 0 <= value <= 99:
            break
    turns = ask(ctx.rng, a, sign, b)
    more = True
    while more and 0 <= value <= 99:
        value, part = change(ctx, value)
        turns += part
        more = ctx.split == "train" and ctx.rng.random() < 0.5
    return turns
