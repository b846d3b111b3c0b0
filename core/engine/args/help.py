"""Renders ``--help``: the flags by group, with the plugins that are installed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from engine.args.flag import WITHOUT_VALUE, Flag
from engine.args.table import FLAGS, TITLES
from engine.plugin.discovery import Entry, scan

_INDENT = 34
_OWN = "engine"
_GRAMMAR = "Dashes and underscores are the same; a unique beginning of a name will do; --flag=value is --flag value."
_STAR = "A flag marked with * needs a capability that this version lacks: any value but the default is refused."


def render_help(
    name: str,
    usage: str,
    about: str,
    own: Sequence[Flag] = (),
    *,
    http: bool = True,
    engine: bool = True,
    entries: Sequence[Entry] | None = None,
    width: int = 0,
) -> str:
    """The whole help of a command. Nothing is imported to know the plugins. ``engine``: it takes the engine's flags."""
    width = max(80, min(width or _columns(), 140))
    plugins = _by_kind(scan() if entries is None else entries)
    parts = [f"usage: {usage}", "", about]
    if own:
        parts += ["", f"engine {name}", *(_row(flag, plugins, width) for flag in own)]
    for key, title in TITLES.items() if engine else ():
        flags = [flag for flag in FLAGS if flag.group == key and (http or flag.engine)]
        if flags:
            parts += ["", title, *(_row(flag, plugins, width) for flag in flags)]
    parts += ["", *_wrap(_GRAMMAR, width), *(_wrap(_STAR, width) if engine else ())]
    return "\n".join(parts)


def _by_kind(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Kind → names; another distribution's plugin says whose it is."""
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        other = entry.distribution.split(" ", 1)[0]
        found.setdefault(entry.kind, {})[entry.name] = entry.name if other == _OWN else f"{entry.name} ({other})"
    return {kind: sorted(names.values()) for kind, names in found.items()}


def _row(flag: Flag, plugins: dict[str, list[str]], width: int) -> str:
    star = "*" if flag.until is not None else " "
    names = ", ".join([*(alias for alias in flag.aliases if not alias.startswith("--no-")), flag.name])
    if flag.type == "pair":
        names = f"{names}, {flag.aliases[0]}"
    head = f" {star}{names}{_metavar(flag)}"
    text = " ".join(filter(None, (flag.help, _choices(flag, plugins), _default(flag))))
    lines = _wrap(text, width - _INDENT)
    if len(head) >= _INDENT - 1:
        return "\n".join([head, *(" " * _INDENT + line for line in lines)])
    return "\n".join([head.ljust(_INDENT) + lines[0], *(" " * _INDENT + line for line in lines[1:])])


def _metavar(flag: Flag) -> str:
    if flag.type in WITHOUT_VALUE:
        return ""
    if flag.type == "switch":
        return "[=true|false]"
    if flag.metavar:
        return f" {flag.metavar}"
    if flag.choices or flag.kind:
        return " NAME"
    return {"int": " N", "float": " X", "json": " JSON", "words": " NAME…"}.get(flag.type, " TEXT")


def _choices(flag: Flag, plugins: dict[str, list[str]]) -> str:
    if flag.kind is not None:
        names = plugins.get(flag.kind, [])
        return f"Installed: {', '.join(names)}." if names else "None is installed."
    return f"One of {', '.join(flag.choices)}." if flag.choices else ""


def _default(flag: Flag) -> str:
    if flag.default in (None, "", False) or flag.default == [] or flag.type == "flag":
        return ""
    shown = {True: "true"}.get(flag.default, str(flag.default)) if isinstance(flag.default, bool) else str(flag.default)
    return f"[{shown}]"


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        return 100
