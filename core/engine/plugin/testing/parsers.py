"""Suites of the parsers that split a model's output: any way of cutting the stream gives the same message, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import pytest

from engine.plugin.api import Choice
from engine.plugin.contracts.text import Delta, ParserState, ReasoningParser, ToolParser
from engine.plugin.host import PluginHost
from engine.plugin.kinds import Kind
from engine.plugin.request import GuideSpec
from engine.plugin.testing.base import PluginContract, choosing_hook, requires
from engine.plugin.testing.text import demo_tokenizer

#: Outputs without any markup, and with what looks like some.
PLAIN = (
    "", "Hello.", "a < b and c > d", "Line one.\n\nLine two.\n", '{"not": "a call"} [1, 2]', "<br> is a tag, <tool is not",
    "日本語 и русский 👩‍👩‍👧",
)  # fmt: skip
TOOLS: tuple[dict[str, Any], ...] = (
    {"type": "function", "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
    }},
)  # fmt: skip


class Message(NamedTuple):
    """What a parser made of a whole output: ``calls`` are (name, arguments text) by index."""

    content: str
    reasoning: str
    calls: tuple[tuple[str, str], ...]


def gather(deltas: Iterable[Delta]) -> Message:
    """The message that a client assembles from deltas."""
    content, reasoning = "", ""
    calls: dict[int, tuple[str, str]] = {}
    for delta in deltas:
        content, reasoning = content + delta.content, reasoning + delta.reasoning
        for piece in delta.tool_calls:
            name, arguments = calls.get(piece.index, ("", ""))
            calls[piece.index] = (name + (piece.name or ""), arguments + piece.arguments)
    return Message(content, reasoning, tuple(calls[index] for index in sorted(calls)))


def feed(state: ParserState, pieces: Sequence[str]) -> Message:
    """The message of an output that arrives in those pieces."""
    return gather([*(state.feed(piece, ()) for piece in pieces), state.finish()])


def cuts(text: str) -> Iterable[list[str]]:
    """Every single cut, one character at a time, and 20 seeded random cuts."""
    yield list(text)
    yield from ([text[:at], text[at:]] for at in range(1, len(text)))
    for seed in range(20):
        chance = random.Random(seed)
        places = sorted(chance.sample(range(len(text) + 1), min(len(text), 5)))
        yield [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


class _ParserContract(PluginContract):
    #: Outputs in the parser's format, unfinished ones too; every one is cut in every way.
    outputs: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        return {"tokenizer": demo_tokenizer(), "options": dict(self.options)}

    @pytest.fixture
    def fresh(self, plugin: Any) -> Callable[[], ParserState]:
        """Starts the state of one request."""
        raise NotImplementedError

    def test_a_stand_in_names_an_installed_parser(self, host: PluginHost, row: Kind[Any], choice: Choice) -> None:
        hook = choosing_hook(host, row, choice)
        if hook is None:
            pytest.skip(f"{self.name} is a parser of its own")
        assert host.call(row, self.name, hook, template="", tokens=frozenset()) is None, "it recognises a parser in an empty template"
        for template in ("<tool_call>", "<think>", "[TOOL_CALLS]", "<|channel|><|message|>"):
            answer = host.call(row, self.name, hook, template=template, tokens=frozenset({template}))
            assert answer is None or host.resolve(row, answer.name)

    def test_any_cut_gives_the_same_message(self, fresh: Callable[[], ParserState]) -> None:
        for text in (*PLAIN, *self.outputs):
            whole = feed(fresh(), [text])
            for pieces in cuts(text):
                assert feed(fresh(), pieces) == whole, f"{text!r} cut as {pieces}"

    def test_empty_pieces_change_nothing(self, fresh: Callable[[], ParserState]) -> None:
        for text in (*PLAIN, *self.outputs):
            assert feed(fresh(), ["", *text, ""]) == feed(fresh(), [text]), repr(text)

    def test_requests_do_not_share_state(self, fresh: Callable[[], ParserState]) -> None:
        for text in (*PLAIN, *self.outputs):
            first, second = fresh(), fresh()
            deltas: tuple[list[Delta], list[Delta]] = ([], [])
            for character in text:
                deltas[0].append(first.feed(character, ()))
                deltas[1].append(second.feed(character, ()))
            deltas[0].append(first.finish())
            deltas[1].append(second.finish())
            assert gather(deltas[0]) == gather(deltas[1]) == feed(fresh(), list(text)), repr(text)

    def test_time_grows_in_proportion_to_the_output(self, fresh: Callable[[], ParserState]) -> None:
        def work(count: int) -> int:
            """Bytecode lines run, which do not depend on the machine's load."""
            return _lines_run(lambda: feed(fresh(), [piece for _ in range(count) for piece in (*self.outputs, "plain text ")]))

        small, large = work(20), work(160)
        assert large < 8 * small * 2.5, f"8 times the output took {large / small:.0f} times the work"


class ReasoningParserContract(_ParserContract):
    """Give ``outputs`` in your format and ``examples``: output → (reasoning, content). ``prompt`` are the prompt's ids (empty here)."""

    kind_name = "reasoning_parser"
    examples: ClassVar[dict[str, tuple[str, str]]] = {}

    @pytest.fixture
    def fresh(self, plugin: ReasoningParser) -> Callable[[], ParserState]:
        return lambda: plugin.start([])

    def test_examples(self, fresh: Callable[[], ParserState]) -> None:
        for text, (reasoning, content) in self.examples.items():
            message = feed(fresh(), [text])
            assert (message.reasoning, message.content) == (reasoning, content), repr(text)

    def test_plain_text_is_not_lost(self, fresh: Callable[[], ParserState]) -> None:
        for text in PLAIN:
            message = feed(fresh(), [text])
            assert (message.reasoning + message.content).strip() == text.strip(), repr(text)

    def test_markers_are_texts(self, plugin: ReasoningParser) -> None:
        assert all(isinstance(marker, str) and marker for marker in plugin.markers())


class ToolParserContract(_ParserContract):
    """Give ``examples``: output → (content, ((name, arguments as an object), …)); ``tools`` are those of the request.

    Capabilities: ``enforced`` (``grammar`` answers a constraint under which the output is a call).
    """

    kind_name = "tool_parser"
    capabilities = frozenset({"enforced"})
    tools: ClassVar[tuple[dict[str, Any], ...]] = TOOLS
    examples: ClassVar[dict[str, tuple[str, tuple[tuple[str, dict[str, Any]], ...]]]] = {}

    @pytest.fixture
    def fresh(self, plugin: ToolParser) -> Callable[[], ParserState]:
        return lambda: plugin.start(list(self.tools))

    def test_examples(self, fresh: Callable[[], ParserState]) -> None:
        import json

        for text, (content, calls) in self.examples.items():
            message = feed(fresh(), [text])
            assert message.content.strip() == content.strip(), repr(text)
            assert tuple((name, json.loads(arguments)) for name, arguments in message.calls) == calls, repr(text)

    def test_text_without_a_call_is_content(self, fresh: Callable[[], ParserState]) -> None:
        for text in ("", "Hello.", "a < b and c > d", "Line one.\n\nLine two.\n", "日本語 👩‍👩‍👧"):
            assert feed(fresh(), [text]) == Message(text, "", ()), repr(text)

    @requires("enforced")
    def test_calls_can_be_enforced(self, plugin: ToolParser) -> None:
        for parallel in (True, False):
            assert isinstance(plugin.grammar(list(self.tools), parallel=parallel), GuideSpec)


def _lines_run(body: Callable[[], object]) -> int:
    import sys

    count = 0

    def trace(*_: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        body()
    finally:
        sys.settrace(before)
    return count
