"""Generated conversations: what is mixed into them, how they are rendered, and which part is learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from arithmetic import arithmetic, follow_up
from filler import count, repeat, small_talk, story, unknown
from skills import extraction, fact, identity, offer, weather
from turns import Context, Conversation, Json, Turn
from words import WORDS, Split, bars

Generator = Callable[[Context], list[Turn]]
GENERATORS: dict[str, tuple[Generator, float]] = {
    "arithmetic": (arithmetic, 0.32),
    "follow_up": (follow_up, 0.09),
    "extraction": (extraction, 0.13),
    "weather": (weather, 0.13),
    "fact": (fact, 0.09),
    "identity": (identity, 0.03),
    "small_talk": (small_talk, 0.04),
    "unknown": (unknown, 0.04),
    "story": (story, 0.01),
    "repeat": (repeat, 0.09),
    "count": (count, 0.06),
}
# For every kind evaluated: generator, with the weather tool, thinking, number of the turn that is asked for.
EVALUATED: dict[str, tuple[str, bool, bool, int]] = {
    "arithmetic, direct": ("arithmetic", False, False, -1),
    "arithmetic, thinking": ("arithmetic", False, True, -1),
    "extraction": ("extraction", False, False, -1),
    "extraction, thinking": ("extraction", False, True, -1),
    "tool call": ("weather", True, False, 1),
    "tool call, thinking": ("weather", True, True, 1),
    "tool answer": ("weather", True, False, 3),
    "tool not needed": ("other", True, False, -1),
    "no tool offered": ("weather", False, False, -1),
    "identity": ("identity", False, False, -1),
    "two turns, fact": ("fact", False, False, -1),
    "two turns, sum": ("follow_up", False, False, -1),
    "two turns, sum, thinking": ("follow_up", False, True, -1),
    "repeat": ("repeat", False, False, -1),
    "count": ("count", False, False, -1),
    "small talk, unknown": ("talk", False, False, -1),
}
SYSTEMS = bars(
    "You are a helpful assistant.|You are a helpful assistant|You are a helpful AI assistant."
    "|Answer briefly.|Be concise."
    "|You are a friendly assistant. Answer every question.|You are an assistant in a test.|Be polite."
    "|Answer in English."
    "|You are a careful and honest assistant.|Keep your answers short.|You are a model. Do what the user asks."
)
TOOL_RULE = 'To call a tool, answer with\n<tool_call>\n{"name": "tool name", "arguments": {"argument": "value"}}\n</tool_call>'


def system_prompt(rng: Random) -> str | None:
    """Mostly none, else a listed line or a line of random words that must not matter."""
    roll = rng.random()
    if roll < 0.5:
        return None
    if roll < 0.7:
        return SYSTEMS[0]
    if roll < 0.85:
        return rng.choice(SYSTEMS)
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 8)))
    return rng.choice(("You are a {} assistant.", "You know about {}.", "{}.", "Always think of {}.")).format(words)


def generator(rng: Random) -> Generator:
    """One of the generators, by weight."""
    return rng.choices([entry[0] for entry in GENERATORS.values()], [entry[1] for entry in GENERATORS.values()])[0]


def interleave(ctx: Context, turns: list[Turn]) -> list[Turn]:
    """Sometimes something else comes between a fact and the question for it, now and then for very long."""
    roll = ctx.rng.random()
    if len(turns) == 4 and roll < 0.35:
        between: list[Turn] = []
        for _ in range(1 if roll < 0.25 else ctx.rng.randint(2, 24)):
            between += ctx.rng.choice((arithmetic, arithmetic, small_talk, repeat, unknown, identity))(ctx)
        return turns[:2] + between + turns[2:]
    return turns


def conversation(rng: Random, split: Split) -> Conversation:
    """A random conversation of one to many exchanges."""
    ctx = Context(rng, split)
    tools: list[Json] = []
    if rng.random() < 0.16:
        ctx.can_call = rng.random() < 0.85
        tools = offer(rng, ctx.can_call)
    exchanges = rng.choices((1, 2, 3, 4, 6, 16), (50, 18, 14, 10, 7, 1))[0]
    turns: list[Turn] = []
    for _ in range(exchanges):
        make = weather if tools and rng.random() < 0.5 else generator(rng)
        part = make(ctx)
        turns += interleave(ctx, part) if make is fact else part
    return Conversation("mixed", turns, system_prompt(rng), tools, rng.random() < 0.35)


def question(rng: Random, kind: str) -> tuple[Conversation, Turn]:
    """A held-out question of an evaluated kind: what precedes the answer, and the answer."""
    name, with_tool, thinking, index = EVALUATED[kind]
    ctx = Context(rng, "heldout", can_call=with_tool)
    if name == "other":
        turns = rng.choice((arithmetic, extraction, identity, small_talk, unknown))(ctx)
    elif name == "talk":
        turns = rng.choice((small_talk, unknown))(ctx)
    else:
        turns = GENERATORS[name][0](ctx)
    return Conversation(kind, turns[:index], system_prompt(rng), offer(rng, True) if with_tool else [], thinking), turns[index]


def dump(value: Any) -> str:
    """JSON as the chat template writes it."""
    return json.dumps(value, ensure_ascii=False)


def spoken(turn: Turn) -> str:
    """An assistant's content with its tool call."""
    if turn.call is None:
        return turn.content
    text = f"<tool_call>\n{dump(turn.call)}\n</tool_call>"
    return f"{turn.content}\n{text}" if turn.content else text


def head(talk: Conversation) -> str:
    """The system turn."""
    if not talk.tools:
        return f"<|im_start|>system\n{talk.system}<|im_end|>\n" if talk.system else ""
    lead = f"{talk.system}\n\n" if talk.system else ""
    return f"<|im_start|>system\n{lead}# Tools\n{dump(talk.tools)}\n{TOOL_RULE}<|im_end|>\n"


def render(talk: Conversation, keep_thoughts: bool = True) -> list[tuple[str, bool]]:
    """The conversation as pieces of text, each with whether the model writes it."""
    pieces = [(head(talk), False)]
    last_user = max(index for index, turn in enumerate(talk.turns) if turn.role == "user")
    for index, turn in enumerate(talk.turns):
        if turn.role == "user":
            pieces.append((f"<|im_start|>user\n{turn.content}<|im_end|>\n", False))
        elif turn.role == "tool":
            text = f"<tool_response>\n{turn.content}\n</tool_response>"
            pieces.append((f"<|im_start|>user\n{text}<|im_end|>\n", False))
        else:
            said = f"{spoken(turn)}<|im_end|>"
            is_last = index == len(talk.turns) - 1
            if talk.thinking and index > last_user and (keep_thoughts or is_last):
                pieces.append(("<|im_start|>assistant\n", False))
                pieces.append((f"<think>\n{turn.thought}\n</think>\n\n{said}", True))
            else:
                pieces.append(("<|im_start|>assistant\n<think>\n\n</think>\n\n", False))
                pieces.append((said, True))
            pieces.append(("\n", False))
    return pieces


def messages(talk: Conversation) -> list[Json]:
    """The conversation as a client of the chat API sends it."""
    result: list[Json] = [{"role": "system", "content": talk.system}] if talk.system else []
    for turn in talk.turns:
        message: Json = {"role": turn.role, "content": turn.content}
        if turn.call is not None:
            call = {"name": turn.call["name"], "arguments": dump(turn.call["arguments"])}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
        elif turn.role == "tool":
            message["tool_call_id"] = "call_1"
        result.append(message)
    return result


if __name__ == "__main__":
    source = Random(0)
    for _ in range(8):
        print("".join(text for text, _ in render(conversation(source, "train"))), end="\n----\n")
