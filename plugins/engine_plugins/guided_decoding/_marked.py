"""Markers of a structural tag that the vocabulary holds as special tokens: the grammar asks for the tokens, not for their letters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def marked(tag: dict[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """A format of structural tags, with the markers in its fixed texts replaced by their token ids."""
    if not ids:
        return tag
    pattern = re.compile("(" + "|".join(map(re.escape, sorted(ids, key=len, reverse=True))) + ")")
    return _replaced(tag, pattern, ids)


def _replaced(tag: dict[str, Any], pattern: re.Pattern[str], ids: Mapping[str, int]) -> dict[str, Any]:
    kind = tag.get("type")
    if kind == "const_string":
        parts = _parts(tag["value"], pattern, ids)
        return tag if len(parts) == 1 and "value" in parts[0] else _sequence(parts)
    inner: dict[str, Any] = {
        name: [_replaced(part, pattern, ids) for part in tag[name]] for name in ("elements", "tags") if name in tag
    }  # fmt: skip
    if isinstance(tag.get("content"), dict):
        inner["content"] = _replaced(tag["content"], pattern, ids)
    found = {**tag, **inner}
    if kind == "triggered_tags" and all(trigger in ids for trigger in tag["triggers"]):
        tokens = [ids[trigger] for trigger in tag["triggers"]]
        rest = {name: value for name, value in found.items() if name != "triggers"}
        return {**rest, "type": "token_triggered_tags", "trigger_tokens": tokens}
    return _tag(found, pattern, ids) if kind == "tag" else found


def _tag(tag: dict[str, Any], pattern: re.Pattern[str], ids: Mapping[str, int]) -> dict[str, Any]:
    """A tag begins and ends with one text or one token: what else its ends hold goes to the content."""
    if not all(isinstance(tag[side], str) for side in ("begin", "end")):
        return tag
    begin, end = (_parts(tag[side], pattern, ids) for side in ("begin", "end"))
    return {
        **tag, "begin": _end(begin[0]), "end": _end(end[-1]), "content": _sequence([*begin[1:], tag["content"], *end[:-1]]),
    }  # fmt: skip


def _parts(text: str, pattern: re.Pattern[str], ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """The texts and tokens of a fixed text, at least one."""
    pieces = [piece for piece in pattern.split(text) if piece] or [""]
    return [
        {"type": "token", "token": ids[piece]} if piece in ids else {"type": "const_string", "value": piece} for piece in pieces
    ]  # fmt: skip


def _end(part: dict[str, Any]) -> Any:
    return part.get("value", part)


def _sequence(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {"type": "sequence", "elements": parts}
