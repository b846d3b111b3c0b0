"""Constraints under which a model writes nothing but tool calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.plugin import GuideSpec


def tagged_calls(
    tools: Sequence[dict[str, Any]], begin: Callable[[str], str], end: str, *, separator: str, parallel: bool, before: str = "",
    after: str = "",
) -> GuideSpec:  # fmt: skip
    """Calls, each ``begin(name)``, the arguments as JSON of the tool's schema, ``end``; ``before`` and ``after`` enclose them all."""
    tags = [
        {"type": "tag", "begin": begin(tool["function"]["name"]), "content": _schema(tool), "end": end} for tool in tools
    ]
    calls: dict[str, Any] = {
        "type": "tags_with_separator", "tags": tags, "separator": separator, "at_least_one": True, "stop_after_first": not parallel,
    }  # fmt: skip
    if before or after:
        parts = [_text(before), calls, _text(after)]
        calls = {"type": "sequence", "elements": [part for part in parts if part.get("value") != ""]}
    return GuideSpec(kind="structural_tag", value={"type": "structural_tag", "format": calls})


def parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments; any object where it has none."""
    found = tool["function"].get("parameters")
    return found if isinstance(found, dict) and found else {"type": "object"}


def _schema(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": parameters(tool)}


def _text(value: str) -> dict[str, Any]:
    return {"type": "const_string", "value": value}
