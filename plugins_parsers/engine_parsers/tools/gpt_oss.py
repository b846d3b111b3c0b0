"""gpt-oss: a message to functions.NAME on the commentary channel; --reasoning-parser gpt_oss reads the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.plugin import GuideSpec, ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._grammar import arguments, enforced, free_text
from engine_parsers._harmony import CALL, CHANNEL, CONSTRAIN, ENDS, MARKERS, MESSAGE, START
from engine_parsers._named import NamedCalls

ENGINE_API = 1
BEGIN = (CALL, "<|channel|>analysis to=functions.", "<|start|>assistant to=functions.")
RECIPIENT = " to=functions."
HEADER = r"(?P<name>[\w.\-]+)[^{]*<\|message\|>\s*"


class ChannelCalls(Format):
    """The channels as a format."""

    def grammar(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec:
        """One call, after an analysis or none: the model ends its turn with each call. The prompt ends with the assistant's start."""
        end, call = ENDS[:2]
        analysis = {"type": "tag", "begin": f"{CHANNEL}analysis{MESSAGE}", "content": {"type": "any_text"}, "end": end}
        again = {"type": "const_string", "value": f"{START}assistant"}
        calls = [
            {
                "type": "tag", "begin": f"{CALL}{tool['function']['name']} {CONSTRAIN}json{MESSAGE}", "end": call,
                "content": arguments(tool),
            }
            for tool in tools
        ]  # fmt: skip
        thought = {"type": "optional", "content": {"type": "sequence", "elements": [analysis, again]}}
        whole = {"type": "sequence", "elements": [thought, {"type": "or", "elements": calls}]}
        return enforced(whole, MARKERS, thinks=True)

    def offer(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec:
        """A recipient, in the channel's header or in that of the message, begins a call."""
        contents = (f" {CONSTRAIN}json{MESSAGE}", MESSAGE)
        kinds = [channel + content for channel in ("", f"{CHANNEL}commentary") for content in contents]
        tags = [
            {
                "type": "tag", "begin": f"{RECIPIENT}{tool['function']['name']}", "end": ENDS[1], "content": {
                    "type": "sequence", "elements": [
                        {"type": "or", "elements": [{"type": "const_string", "value": kind} for kind in kinds]}, arguments(tool),
                    ],
                },
            }
            for tool in tools
        ]  # fmt: skip
        return free_text((RECIPIENT,), tags, parallel=parallel, markers=MARKERS, thinks=True)


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return ChannelCalls(lambda tools: NamedCalls(BEGIN, HEADER, ENDS, dropped=("<|start|>assistant",)), MARKERS)
