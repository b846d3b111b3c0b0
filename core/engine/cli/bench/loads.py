"""Made-up load: how long prompts and outputs are, what prompts say, and when requests are sent."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from engine.args.flag import Flag
from engine.errors import ConfigError

LENGTHS = ("fixed", "uniform", "chat")
#: Deviation of the logarithm of lengths under ``chat``: many short ones, and a long tail, as in conversations.
_CHAT_SPREAD = (1.1, 0.9)
#: The longest under ``chat``, as a multiple of the mean.
_CHAT_LONGEST = 8

#: What the load is like; its seed apart, which has another spelling where ``--seed`` is not the engine's.
FORM = (
    Flag("--input-len", "int", 128, "Tokens per prompt (the mean, where lengths vary).", metavar="TOKENS"),
    Flag("--output-len", "int", 128, "Tokens per output (the mean, where lengths vary).", metavar="TOKENS"),
    Flag(
        "--lengths", "str", "fixed", "fixed; uniform (half to one and a half of the mean); chat (log-normal: many short, few long).",
        choices=LENGTHS,
    ),
    Flag("--shared-prefix", "int", 0, "Tokens that all prompts begin with, counted in --input-len.", metavar="TOKENS"),
)  # fmt: skip
FLAGS = (*FORM, Flag("--prompt-seed", "int", 0, "Seed of the made-up load.", metavar="SEED"))


@dataclass(frozen=True)
class Sizes:
    """Tokens of one request."""

    input: int
    output: int


def draw_sizes(count: int, input_len: int, output_len: int, lengths: str, source: random.Random) -> list[Sizes]:
    """``count`` requests. Raises ConfigError for an unknown kind of lengths."""
    if lengths not in LENGTHS:
        raise ConfigError(f"--lengths {lengths}: not one of {', '.join(LENGTHS)}.", fix="--lengths fixed")
    wanted, spreads = (input_len, output_len), _CHAT_SPREAD
    pairs = [[_length(mean, lengths, spread, source) for mean, spread in zip(wanted, spreads, strict=True)] for _ in range(count)]
    return [Sizes(*pair) for pair in pairs]


def _length(mean: int, lengths: str, spread: float, source: random.Random) -> int:
    if lengths == "uniform":
        return max(1, source.randint(mean - mean // 2, mean + mean // 2))
    if lengths == "chat":
        drawn = source.lognormvariate(math.log(mean) - spread**2 / 2, spread)
        return max(1, min(round(drawn), _CHAT_LONGEST * mean))
    return mean


def draw_prompts(sizes: Sequence[Sizes], ordinary: Sequence[int], prefix: list[int], source: random.Random) -> list[list[int]]:
    """Random ids out of ``ordinary`` after ``prefix``; beyond it no two prompts have a beginning that a prefix cache could reuse."""
    return [prefix[: size.input - 1] + source.choices(ordinary, k=max(1, size.input - len(prefix))) for size in sizes]


def draw_times(count: int, rate: float, source: random.Random) -> list[float]:
    """Seconds after the start at which requests are sent: a Poisson process of ``rate`` per second; all at once for 0."""
    if rate <= 0:
        return [0.0] * count
    times, now = [], 0.0
    for _ in range(count):
        times.append(now)
        now += source.expovariate(rate)
    return times


_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def draw_words(count: int, source: random.Random) -> list[str]:
    """Pronounceable words of one to three syllables: text for servers and endpoints that take no token ids."""
    return [
        "".join(source.choice(_CONSONANTS) + source.choice(_VOWELS) for _ in range(source.randint(1, 3))) for _ in range(count)
    ]
