"""Running a parser over an output in any split, and putting its deltas together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from engine.plugin import Delta, ParserState, Tokenizer


class Message(NamedTuple):
    """What a client has at the end; ``calls``: (name, arguments' text)."""

    content: str
    reasoning: str
    calls: tuple[tuple[str, str], ...]


Make = Callable[[], ParserState]


def message(content: str = "", *calls: tuple[str, str], reasoning: str = "") -> Message:
    """What is expected of a parser."""
    return Message(content, reasoning, tuple(calls))


def run(make: Make, pieces: Iterable[str]) -> Message:
    """Feed the pieces; deltas must obey the rules of streams: ids and names once, indices from 0 on, no empty piece of a call."""
    state = make()
    deltas = [state.feed(piece, (0,)) for piece in pieces]
    deltas.append(state.finish())
    return gather(deltas)


def gather(deltas: Sequence[Delta]) -> Message:
    """One message from deltas."""
    names: list[str] = []
    arguments: list[list[str]] = []
    ids: list[str] = []
    for delta in deltas:
        for call in delta.tool_calls:
            if call.index == len(names):
                assert call.id and call.name, "a call begins with its id and name"
                names.append(call.name)
                ids.append(call.id)
                arguments.append([])
            else:
                assert call.index == len(names) - 1, "pieces belong to the latest call"
                assert call.id is None and call.name is None, "id and name come once"
                assert call.arguments, "an empty piece"
            arguments[call.index].append(call.arguments)
    assert len(set(ids)) == len(ids), "two calls have one id"
    content = "".join(delta.content for delta in deltas)
    reasoning = "".join(delta.reasoning for delta in deltas)
    return Message(content, reasoning, tuple(zip(names, map("".join, arguments), strict=True)))


def check_splits(make: Make, text: str, *, seed: int = 0, randoms: int = 8, singles: int = 400) -> Message:
    """The message of the whole; every split gives it too: all single ones (of long texts a sample), single characters, random ones."""
    whole = run(make, [text])
    chance = random.Random(f"{seed} {text}")
    places = range(len(text) + 1) if len(text) <= singles else chance.sample(range(len(text) + 1), singles)
    for at in places:
        assert run(make, [text[:at], text[at:]]) == whole, f"split at {at}"
    assert run(make, text) == whole, "single characters"
    for _ in range(randoms):
        pieces, at = [], 0
        while at < len(text):
            end = at + chance.choice((0, 1, 1, 2, 3, 5, 8, 30))
            pieces.append(text[at:end])
            at = end
        assert run(make, pieces) == whole, pieces
    return whole


class Vocabulary(Tokenizer):
    """One token per character, and one per marker."""

    def __init__(self, markers: Sequence[str] = (), special: Sequence[str] = ("<eos>",)) -> None:
        self._entries = [*special, *markers]
        self._special = frozenset(range(len(special)))

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(text):
            entry = next((entry for entry in self._entries if allow_special and text.startswith(entry, at)), None)
            ids.append(self._entries.index(entry) if entry else len(self._entries) + ord(text[at]))
            at += len(entry) if entry else 1
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        kept = (token for token in token_ids if not (skip_special_tokens and token in self._special))
        return "".join(map(self.token_text, kept))

    def token_text(self, token_id: int) -> str:
        return self._entries[token_id] if token_id < len(self._entries) else chr(token_id - len(self._entries))

    def size(self) -> int:
        return len(self._entries) + 0x110000

    def special_ids(self) -> frozenset[int]:
        return self._special

    def token_id(self, text: str) -> int | None:
        if text in self._entries:
            return self._entries.index(text)
        return len(self._entries) + ord(text) if len(text) == 1 else None

    @property
    def eos_token_id(self) -> int | None:
        return 0

    @property
    def bos_token_id(self) -> int | None:
        return None

    def chat_template(self) -> str | dict[str, str] | None:
        return None


def tool_maker(name: str, tools: Sequence[dict[str, Any]]) -> Make:
    """States of the built-in tool parser whose module has this name."""
    parser = import_module(f"engine_parsers.tools.{name}").engine_create_tool_parser()
    return lambda: parser.start(tools)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A function tool; properties are schemas."""
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}
