"""From text to message: the reasoning parser first, then the tool parser on what is left."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.plugin.contracts.text import Delta, ParserState, ToolCallDelta


class MessageParser:
    """The parsers of one choice; either may be None. Feed it token by token, so that reasoning tokens are counted exactly."""

    def __init__(
        self, reasoning: ParserState | None, tools: ParserState | None, *, single_call: bool = False, bare: bool = False
    ) -> None:
        """``single_call``: only the first tool call is kept. ``bare``: line breaks between the reasoning and the content are markup."""
        self._reasoning = reasoning
        self._tools = tools
        self._single = single_call
        self._bare = bare
        self.reasoning_tokens = 0
        self.called = False

    def feed(self, text: str, token: int) -> Delta:
        """The text that became certain with this token."""
        if self._reasoning is None:
            return self._find_calls(Delta(text), (token,))
        self.reasoning_tokens += self._reasoning.thinking()
        return self._find_calls(self._reasoning.feed(text, (token,)), (token,))

    def finish(self, text: str) -> Delta:
        """The last text, and what the parsers held back."""
        deltas = [self._find_calls(Delta(text) if self._reasoning is None else self._reasoning.feed(text, ()), ())]
        if self._reasoning is not None:
            deltas.append(self._find_calls(self._reasoning.finish(), ()))
        if self._tools is not None:
            deltas.append(self._kept(self._tools.finish()))
        return join(deltas)

    def _find_calls(self, delta: Delta, tokens: Sequence[int]) -> Delta:
        if self._bare and delta.content:
            kept = delta.content.lstrip("\n") if self.reasoning_tokens else delta.content
            self._bare = not kept
            delta = msgspec.structs.replace(delta, content=kept)
        if self._tools is None or not delta.content:
            return delta
        found = self._kept(self._tools.feed(delta.content, tokens))
        return msgspec.structs.replace(found, reasoning=delta.reasoning)

    def _kept(self, delta: Delta) -> Delta:
        if self._single and any(call.index for call in delta.tool_calls):
            delta = msgspec.structs.replace(delta, tool_calls=tuple(call for call in delta.tool_calls if not call.index))
        self.called = self.called or bool(delta.tool_calls)
        return delta


def join(deltas: Sequence[Delta]) -> Delta:
    """Several deltas as one; pieces of one tool call become one piece."""
    if len(deltas) == 1:
        return deltas[0]
    return Delta(
        content="".join(delta.content for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        tool_calls=join_calls([call for delta in deltas for call in delta.tool_calls]),
    )


def join_calls(pieces: Sequence[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    """One entry per tool call, in order, from pieces."""
    if len(pieces) < 2:
        return tuple(pieces)
    calls: dict[int, list[ToolCallDelta]] = {}
    for piece in pieces:
        calls.setdefault(piece.index, []).append(piece)
    return tuple(
        ToolCallDelta(
            index,
            id=next((part.id for part in parts if part.id is not None), None),
            name=next((part.name for part in parts if part.name is not None), None),
            arguments="".join(part.arguments for part in parts),
        )
        for index, parts in calls.items()
    )
