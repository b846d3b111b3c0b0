"""The tools of a chat request: checked, and what tool_choice makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.errors import RequestError
from engine.plugin.contracts.text import ToolCallDelta
from engine.plugin.request import GuideSpec
from engine.server.openai.protocol import ChatBody
from engine.server.parsing import Parsers


class Calling(msgspec.Struct, frozen=True, kw_only=True):
    """Which tools an answer may call (empty: none), whether only the first call counts, and the constraint that enforces calls.

    ``instead``: the constraint under which calls come in place of an answer that another constraint shapes, where both are free to.
    ``offered``: the one that holds calls to their schemas in an otherwise free answer, because a tool is strict.
    """

    tools: list[dict[str, Any]] = []
    single: bool = False
    guide: GuideSpec | None = None
    instead: GuideSpec | None = None
    offered: GuideSpec | None = None

    def shaping(self, guide: GuideSpec | None) -> GuideSpec | None:
        """``guide`` where it says what the content is; None where it leaves that free."""
        free = self.offered is not None and guide is not None and guide.value == self.offered.value
        return None if free else guide

    def beside(self, guide: GuideSpec) -> GuideSpec:
        """``guide`` of a request whose answer obeys it or calls tools. Raises RequestError where the two cannot be joined."""
        if not self.tools or self.guide is not None or guide is self.offered:
            return guide
        calls = self.instead
        joins = calls is not None and calls.kind == "structural_tag" and not calls.options.get("thinks")
        if calls is None or not joins or guide.kind not in ("json", "json_object"):
            raise RequestError(
                "tools with tool_choice 'auto' and this constraint on the output do not go together on this server; "
                "send tool_choice 'none' or 'required', or no constraint.", param="tool_choice", code="not_available",
            )  # fmt: skip
        schema = guide.value if guide.kind == "json" else {"type": "object"}
        answer = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
        shaped = {"type": "sequence", "elements": [{"type": "regex", "pattern": "\\n{0,2}"}, answer]}
        either = {"type": "or", "elements": [shaped, calls.value["format"]]}
        return GuideSpec(
            "structural_tag", {"type": "structural_tag", "format": either}, backend=guide.backend,
            options={
                **{name: value for name, value in guide.options.items() if name == "fallback"},
                **{name: value for name, value in calls.options.items() if name == "markers"},
            },
        )  # fmt: skip


def read_calling(body: ChatBody, parsers: Parsers) -> Calling:
    """What ``tools``, ``tool_choice`` and ``parallel_tool_calls`` ask for. Raises RequestError where this server cannot do it."""
    tools = body.tools or []
    choice, names = _choice(body.tool_choice, tools)
    if choice == "none":
        return Calling()
    if choice == "auto" and not (parsers.auto_tools and parsers.tools is not None):
        if body.tool_choice is None:
            # The template shows the tools; what the model makes of them stays text, as this server was started.
            return Calling()
        raise RequestError(
            "tool_choice 'auto' needs a server that finds tool calls; send tool_choice 'none' to show the tools to nobody.",
            param="tool_choice", fix="start the server with --enable-auto-tool-choice --tool-call-parser auto",
        )  # fmt: skip
    if parsers.tools is None:
        raise RequestError(
            f"{_said(choice)} needs a server that finds tool calls.", param="tool_choice",
            fix="start the server with --tool-call-parser auto",
        )  # fmt: skip
    single = body.parallel_tool_calls is False
    chosen = [tool for tool in tools if tool["function"]["name"] in names]
    if choice == "auto":
        strict = any(tool["function"].get("strict") is True for tool in chosen)
        return Calling(
            tools=chosen, single=single, instead=parsers.tools.grammar(chosen, parallel=not single),
            offered=parsers.tools.offer(chosen, parallel=not single) if strict else None,
        )  # fmt: skip
    guide = parsers.tools.grammar(chosen, parallel=not single and choice == "required")
    if guide is None:
        raise RequestError(
            f"{_said(choice)} is not available with this server's tool-call parser, whose format has no grammar; "
            "allowed: 'auto', 'none'.", param="tool_choice", code="not_available",
        )  # fmt: skip
    return Calling(tools=chosen, single=single or choice == "named", guide=guide)


def _said(choice: str) -> str:
    return "tool_choice of one function by name" if choice == "named" else f"tool_choice {choice!r}"


def _choice(choice: Any, tools: Sequence[dict[str, Any]]) -> tuple[str, frozenset[str]]:
    """(none, auto, required or named; the names of the tools that may be called)."""
    names = frozenset(tool["function"]["name"] for tool in tools)
    if choice is None or choice == "auto":
        return ("auto", names) if tools else ("none", names)
    if choice == "none":
        return "none", names
    if choice == "required":
        if not tools:
            raise RequestError("tool_choice 'required' needs tools.", param="tool_choice")
        return "required", names
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return _allowed(choice, names)
    name = _named(choice)
    if name is None:
        shown = str(choice)[:60]
        raise RequestError(
            f"tool_choice cannot be {shown!r}; allowed: 'none', 'auto', 'required', a function by name, or null.", param="tool_choice"
        )
    if name not in names:
        raise RequestError(f"tool_choice names {name[:100]!r}, which is not among the tools.", param="tool_choice")
    return "named", frozenset((name,))


def _named(choice: Any) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type", "function") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _allowed(choice: dict[str, Any], names: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The form that lists some of the tools."""
    inner = choice.get("allowed_tools")
    listed = inner.get("tools") if isinstance(inner, dict) else None
    mode = inner.get("mode", "auto") if isinstance(inner, dict) else None
    if mode not in ("auto", "required") or not isinstance(listed, list) or not listed:
        cause = "tool_choice.allowed_tools needs a mode ('auto' or 'required') and a list of tools."
        raise RequestError(cause, param="tool_choice.allowed_tools")
    allowed = frozenset(name for tool in listed if (name := _named(tool)) is not None)
    if len(allowed) < len(listed) or not allowed <= names:
        raise RequestError("tool_choice.allowed_tools lists a function that is not among the tools.", param="tool_choice.allowed_tools")
    return mode, allowed


def show_call(call: ToolCallDelta) -> dict[str, Any]:
    """A whole call as an answer shows it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def show_piece(piece: ToolCallDelta) -> dict[str, Any]:
    """A piece of a call as a stream shows it: id, type and name with the first piece only."""
    if piece.id is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    return {"index": piece.index, **show_call(piece)}
