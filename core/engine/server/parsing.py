"""The parsers of a server, and how one request uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.assemble.message import MessageParser
from engine.plugin.contracts.text import ParserState, ReasoningParser, Thinking, Tokenizer, ToolParser

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.plugin.faults import Faults
    from engine.plugin.host import PluginHost
    from engine.plugin.request import GuideSpec


class Parsers:
    """What a server was started with; either may be None. ``auto_tools``: requests may leave it to the model to call tools."""

    def __init__(
        self, tokenizer: Tokenizer | None = None, reasoning: ReasoningParser | None = None, tools: ToolParser | None = None, *,
        auto_tools: bool = False,
    ) -> None:  # fmt: skip
        self.reasoning = reasoning
        self.tools = tools
        self.auto_tools = auto_tools
        self._reasoning_ids = _ids(tokenizer, reasoning.markers() if reasoning is not None else ())
        self._tool_ids = _ids(tokenizer, tools.markers() if tools is not None else ())

    def thinking(self, prompt: Sequence[int]) -> Thinking | None:
        """Where the thinking of an answer to ``prompt`` stands; None where nothing tells reasoning apart."""
        return self.reasoning.thinking(prompt) if self.reasoning is not None else None

    def parsing(self, tools: Sequence[dict[str, Any]], *, single_call: bool = False, guide: GuideSpec | None = None) -> Parsing | None:
        """How to read the answer of a request whose answer may call ``tools`` (empty: none). None: as plain text.

        ``guide``: says what the content is: line breaks that it does not begin with are none, those that it does are."""
        called = self.tools if tools else None
        if self.reasoning is None and called is None:
            return None
        shown = self._reasoning_ids | (self._tool_ids if called is not None else frozenset())
        return Parsing(self.reasoning, called, tools, shown, single_call, guide)


class Parsing:
    """How to read the answers of one request. ``shown``: special tokens that the parsers must see."""

    def __init__(
        self, reasoning: ReasoningParser | None, caller: ToolParser | None, tools: Sequence[dict[str, Any]],
        shown: frozenset[int], single_call: bool, guide: GuideSpec | None = None,
    ) -> None:  # fmt: skip
        self.shown = shown
        self.reasons = reasoning is not None
        self._reasoning = reasoning
        self._caller = caller
        self._tools = tools
        self._single = single_call
        constrained = guide is not None and bool(guide.start_after)
        self._keeps = guide is not None and guide.breaks
        self._bare = constrained and not self._keeps

    def start(self, prompt: Sequence[int], wrap: Callable[[str, ParserState], ParserState] | None = None) -> MessageParser:
        """The parsers of one choice that continues ``prompt``. ``wrap``: puts something around each, by its kind."""
        reasoning = self._reasoning.start(prompt) if self._reasoning is not None else None
        if reasoning is not None and self._keeps:
            reasoning.keep_breaks()
        tools = self._caller.start(self._tools) if self._caller is not None else None
        if wrap is not None:
            reasoning = reasoning and wrap("reasoning_parser", reasoning)
            tools = tools and wrap("tool_parser", tools)
        return MessageParser(reasoning, tools, single_call=self._single, bare=self._bare)


def make_parsers(config: EngineConfig, host: PluginHost, tokenizer: Tokenizer | None, faults: Faults | None = None) -> Parsers:
    """The parsers that the flags name, guarded by ``faults``. Raises the :class:`engine.errors.PluginError` subclasses."""
    from engine.plugin import kinds
    from engine.plugin.faults import Faults
    from engine.plugin.guarded import GuardedReasoning, GuardedTools

    faults = faults or Faults()

    reasoning, tools, server = None, None, config.server
    chosen = config.choices.get(kinds.REASONING_PARSER.name)
    if chosen is not None and tokenizer is not None:
        made = host.create(kinds.REASONING_PARSER, chosen, tokenizer=tokenizer, options=server.reasoning_options)
        reasoning = GuardedReasoning(faults, made.choice, made.plugin)
    chosen = config.choices.get(kinds.TOOL_PARSER.name)
    if chosen is not None and tokenizer is not None:
        found = host.create(kinds.TOOL_PARSER, chosen, tokenizer=tokenizer, options=server.tool_options)
        tools = GuardedTools(faults, found.choice, found.plugin)
    return Parsers(tokenizer, reasoning, tools, auto_tools=server.auto_tool_choice)


def _ids(tokenizer: Tokenizer | None, markers: Sequence[str]) -> frozenset[int]:
    found = (tokenizer.token_id(marker) for marker in markers) if tokenizer is not None else ()
    return frozenset(token for token in found if token is not None)
