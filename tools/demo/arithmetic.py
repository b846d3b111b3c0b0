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
    "and plus {b}?|And plus {b}?|plus {b}?|Now add {b}.|Add {b} to that.|And if you add {b}?|Plus {b}|+ {b}"
    "|What is that plus {b}?"
)
FOLLOW_MINUS = bars(
    "and minus {b}?|And minus {b}?|minus {b}?|Now subtract {b}.|Take {b} away from that.|And if you subtract {b}?"
    "|Minus {b}|- {b}|What is that minus {b}?"
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
    low = 10 if split == "heldout" or rng.random() < 0.8 else 0
    while True:
        a, sign, b = rng.randint(low, 99), rng.choice("+-"), rng.randint(low, 99)
        if allowed(a, sign, b, split):
            return a, sign, b


def ask(rng: Random, a: int, sign: str, b: int) -> list[Turn]:
    """A question with its answer."""
    form = rng.choice(PLUS if sign == "+" else MINUS)
    if rng.random() < 0.25:
        form = "What is {a} + {b}?" if sign == "+" else "What is {a} - {b}?"
    question = form.format(a=a, b=b, thing=rng.choice(THINGS))
    return [user(vary(rng, question)), answer(str(result(a, sign, b)), derivation(a, sign, b))]


def arithmetic(ctx: Context) -> list[Turn]:
    """One sum or difference."""
    return ask(ctx.rng, *operands(ctx.rng, ctx.split))


def follow_up(ctx: Context) -> list[Turn]:
    """A sum or difference, and then a change to its result."""
    rng = ctx.rng
    while True:
        a, sign, b = operands(rng, ctx.split)
        first = result(a, sign, b)
        second, then = rng.choice("+-"), rng.randint(1, 20 if rng.random() < 0.8 else 99)
        if 0 <= first <= 99 and allowed(first, second, then, ctx.split):
            break
    form = rng.choice(FOLLOW_PLUS if second == "+" else FOLLOW_MINUS)
    again = [user(form.format(b=then)), answer(str(result(first, second, then)), derivation(first, second, then))]
    return ask(rng, a, sign, b) + again
