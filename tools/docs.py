"""Writes the generated tables of docs/plugins.md from the kinds, the hooks and the installed plugins; ``--check`` compares."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from engine.plugin import spec
from engine.plugin.discovery import scan
from engine.plugin.kinds import KINDS
from engine.plugin.listing import describe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "plugins.md"


def kinds() -> str:
    """One row per kind: group, flag, hook, contract, built-in names."""
    names: dict[str, list[str]] = {}
    for entry in scan():
        if entry.distribution.startswith("engine "):
            names.setdefault(entry.kind, []).append(entry.name)
    rows = ["| group | chosen by | hook | contract | built in |", "|---|---|---|---|---|"]
    for kind in KINDS:
        flag = f"`{kind.flag}`" if kind.flag else "the config or the request"
        built_in = ", ".join(f"`{name}`" for name in names.get(kind.name, [])) or "none yet"
        rows.append(f"| `{kind.group}`: {kind.about} | {flag} | `{kind.hook}` | `{kind.contract.__name__}` | {built_in} |")
    return "\n".join(rows)


def hooks() -> str:
    """Each hook with its arguments and when it is called."""
    parts = []
    for name, function in vars(spec).items():
        if name.startswith("engine_"):
            signature = str(inspect.signature(function)).replace("'", "")
            doc = " ".join((inspect.getdoc(function) or "").split())
            parts.append(f"- `{name}{signature}`  \n  {doc}")
    return "\n".join(parts)


def plugins() -> str:
    """The built-in plugins with their first docstring line."""
    rows = ["| kind | name | what it does |", "|---|---|---|"]
    for row in describe(entry for entry in scan() if entry.distribution.startswith("engine ")):
        rows.append(f"| {row.kind} | `{row.name}` | {row.about} |")
    return "\n".join(rows)


def render(text: str) -> str:
    """The page with every generated block filled anew."""
    for name, make in (("kinds", kinds), ("hooks", hooks), ("plugins", plugins)):
        start, end = f"<!-- generated: {name} -->", "<!-- end -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        block = f"{start}\n{make()}\n{end}"
        text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]
    return text


def main() -> int:
    """Command line."""
    old = PAGE.read_text(encoding="utf-8")
    new = render(old)
    if "--check" in sys.argv:
        return int(old != new)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
