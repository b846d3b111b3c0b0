"""What a generated conversation consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from words import Split

Json = dict[str, Any]


@dataclass
class Turn:
    """One message; an assistant's has the thought that precedes it when thinking is on."""

    role: Literal["user", "assistant", "tool"]
    content: str
    thought: str = ""
    call: Json | None = None


@dataclass
class Context:
    """What a generator may know of the conversation it adds to."""

    rng: Random
    split: Split
    can_call: bool = False


@dataclass
class Conversation:
    """Messages with all that the chat template takes."""

    kind: str
    turns: list[Turn]
    system: str | None = None
    tools: list[Json] = field(default_factory=list)
    thinking: bool = False


def user(content: str) -> Turn:
    """A user's message."""
    return Turn("user", content)


def answer(content: str, thought: str) -> Turn:
    """An assistant's message."""
    return Turn("assistant", content, thought)


def vary(rng: Random, question: str) -> str:
    """Small changes that people make without changing what they mean."""
    roll = rng.random()
    if roll < 0.06:
        question = question[0].lower() + question[1:]
    elif roll < 0.12:
        question = rng.choice(("Please: ", "Hi! ", "Hello, ", "Quick question: ", "Hey, ", "OK. ", "Now: ")) + question
    roll = rng.random()
    if roll < 0.06 and question[-1] in "?.!":
        question = question[:-1]
    elif roll < 0.10:
        question += rng.choice((" Thanks!", " Please.", " Thank you.", " :)"))
    return question
