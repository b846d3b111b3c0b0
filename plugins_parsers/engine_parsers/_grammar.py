"""Constraints under which a model writes nothing but tool calls, or calls in free text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from engine.plugin import GuideSpec


def tagged_calls(
    tools: Sequence[dict[str, Any]], begin: Callable[[str], str], end: str, *, separator: str, parallel: bool, before: str = "",
    after: str = "", style: str = "json", number: tuple[str, str] | None = None, markers: Sequence[str] = (),
) -> GuideSpec:  # fmt: skip
    """Calls, each ``begin(name)``, the arguments as the tool's schema wants them, ``end``; ``before`` and ``after`` enclose them all.

    ``style``: how arguments are written: json, or qwen_xml, minimax_xml, deepseek_xml, glm_xml. ``number``: a pattern and a text that
    stand between the beginning and the arguments. ``markers``: texts that come as one token where the vocabulary has them as such.
    """
    calls = _listed(_tags(tools, begin, end, style, number), separator, parallel)
    # Models put line breaks between their thoughts and what follows.
    parts = [{"type": "regex", "pattern": "\\n{0,2}"}, _text(before), calls, _text(after)]
    return enforced(_sequence(parts), markers)


def offered_calls(
    tools: Sequence[dict[str, Any]], begin: Callable[[str], str], end: str, *, trigger: str, separator: str, parallel: bool,
    before: str = "", after: str = "", style: str = "json", number: tuple[str, str] | None = None, markers: Sequence[str] = (),
) -> GuideSpec:  # fmt: skip
    """Any text, in which ``trigger`` is the beginning of calls as :func:`tagged_calls` has them; ``parallel`` False: it ends with the
    first one."""
    tags = _tags(tools, begin, end, style, number)
    if before:
        content = _sequence([_text(before.removeprefix(trigger)), _listed(tags, separator, parallel)])
        tags = [{"type": "tag", "begin": trigger, "content": content, "end": after}]
    return free_text((trigger,), tags, parallel=parallel, markers=markers)


def spotted_calls(
    tools: Sequence[dict[str, Any]], forms: Sequence[str], end: str, *, parallel: bool, markers: Sequence[str] = ()
) -> GuideSpec:
    """Any text, in which a call is what begins like one of ``forms`` up to the name of a tool, wherever it stands: for formats without
    a marker, whose parsers tell calls from text by the names.

    A form has ``"NAME"`` in place of the name (as JSON text) and goes on to the arguments; ``end`` follows these.
    """
    tags: list[dict[str, Any]] = []
    triggers: list[str] = []
    for form in forms:
        head, rest = form.split('"NAME"')
        for tool in tools:
            trigger = head + json.dumps(tool["function"]["name"], ensure_ascii=False)
            triggers.append(trigger)
            tags.append({"type": "tag", "begin": trigger + rest, "content": arguments(tool), "end": end})
    return free_text(triggers, tags, parallel=parallel, markers=markers)


def free_text(
    triggers: Sequence[str], tags: Sequence[dict[str, Any]], *, parallel: bool, markers: Sequence[str], thinks: bool = False
) -> GuideSpec:
    """Any text, special tokens too, in which a trigger is the beginning of one of ``tags``; ``parallel`` False: it ends with the first."""
    free = {
        "type": "triggered_tags", "triggers": list(triggers), "tags": list(tags), "at_least_one": False, "stop_after_first": not parallel,
    }  # fmt: skip
    return enforced(free, markers or triggers, thinks=thinks)


def _tags(
    tools: Sequence[dict[str, Any]], begin: Callable[[str], str], end: str, style: str, number: tuple[str, str] | None
) -> list[dict[str, Any]]:
    """One tag for each tool."""

    def content(tool: dict[str, Any]) -> dict[str, Any]:
        if number is None:
            return arguments(tool, style)
        return {"type": "sequence", "elements": [{"type": "regex", "pattern": number[0]}, _text(number[1]), arguments(tool, style)]}

    return [{"type": "tag", "begin": begin(tool["function"]["name"]), "content": content(tool), "end": end} for tool in tools]


def _listed(tags: list[dict[str, Any]], separator: str, parallel: bool) -> dict[str, Any]:
    return {
        "type": "tags_with_separator", "tags": tags, "separator": separator, "at_least_one": True, "stop_after_first": not parallel,
    }  # fmt: skip


def _sequence(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The parts that are not empty."""
    return {"type": "sequence", "elements": [part for part in parts if part.get("value") != ""]}


def enforced(whole: dict[str, Any], markers: Sequence[str], *, thinks: bool = False) -> GuideSpec:
    """The constraint of a structural tag's format. ``thinks``: it describes the thinking before the calls, too."""
    options = ({"markers": list(markers)} if markers else {}) | ({"thinks": True} if thinks else {})
    return GuideSpec(kind="structural_tag", value={"type": "structural_tag", "format": whole}, options=options)


def parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments; any object where it has none."""
    found = tool["function"].get("parameters")
    return found if isinstance(found, dict) and found else {"type": "object"}


def arguments(tool: dict[str, Any], style: str = "json") -> dict[str, Any]:
    """The format of a tool's arguments as its schema wants them."""
    # Models that may write any white space between the parts of a JSON text sometimes never stop.
    layout: dict[str, Any] = {"max_whitespace_cnt": 1} if style == "json" else {"style": style}
    return {"type": "json_schema", "json_schema": parameters(tool), **layout}


def _text(value: str) -> dict[str, Any]:
    return {"type": "const_string", "value": value}
