"""Checks plugin names against what is installed, and refuses flags whose capability this version lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.args.flag import Flag, Problem
from engine.args.spelling import nearest
from engine.plugin.discovery import Entry


def installed(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Kind → the names of its installed plugins, sorted."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(entry.kind, set()).add(entry.name)
    return {kind: sorted(names) for kind, names in found.items()}


def check_flags(flags: Iterable[Flag], given: Mapping[str, object], plugins: Mapping[str, list[str]]) -> list[Problem]:
    """One problem for each given value that this installation cannot honour."""
    problems: list[Problem] = []
    for flag in flags:
        value = given.get(flag.dest, flag.default)
        if flag.dest not in given or value == flag.default or value is None:
            continue
        if flag.until is not None:
            if value not in flag.accepts:
                problems.append(_missing(flag, value))
        elif flag.kind is not None:
            names = value if isinstance(value, list) else [str(value)]
            problems.extend(filter(None, (_check_name(flag, name, plugins.get(flag.kind, [])) for name in names)))
    return problems


def _missing(flag: Flag, value: object) -> Problem:
    shown = flag.name if flag.type in ("flag", "pair") else f"{flag.name} {value}"
    return Problem(
        f"{shown}: not available in this version ({flag.until}).",
        f"leave {flag.name} out",
    )


def _check_name(flag: Flag, value: str, plugins: list[str]) -> Problem | None:
    name = value.partition(":")[0] if flag.options else value
    if name in plugins:
        return None
    asked = f"{flag.name} {name or repr(name)}"
    have = f"Installed: {', '.join(plugins)}." if plugins else "None is installed."
    if name in flag.choices:
        fix = f"{flag.name} {flag.default}" if flag.default in plugins else f"leave {flag.name} out"
        return Problem(f"{asked}: not available in this version. {have}", fix, status=3)
    near = nearest(name, plugins)
    lacking = None if near else nearest(name, flag.choices)
    hint = f" Did you mean {near}?" if near else f" The nearest, {lacking}, is not available in this version." if lacking else ""
    return Problem(
        f"{asked}: no such plugin.{hint} {have}",
        f"{flag.name} {near}" if near else f"engine plugins list --kind {flag.kind}",
        status=3,
    )
