"""Writes the tables of docs/plugins.md and the whole of docs/plugin-guide.md from kinds, hooks and examples; ``--check`` compares."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from engine.plugin import spec
from engine.plugin.discovery import scan
from engine.plugin.kinds import KINDS
from engine.plugin.listing import describe
from engine.plugin.scaffold import template
from engine.plugin.testing.table import SUITE_NAMES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "plugins.md"
GUIDE = PAGE.with_name("plugin-guide.md")
_GUIDE_HEAD = """# A complete plugin of every kind

Generated from the examples that `engine plugins new KIND NAME` writes. Each of them passes its kind's suite in the tests
(`tests/contract/test_templates.py`). `engine plugins docs KIND` prints the whole contract; [plugins.md](plugins.md) has the rules.
"""


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
        about = row.about.replace("|", r"\|")  # a bar would end the cell
        rows.append(f"| {row.kind} | `{row.name}` | {about} |")
    return "\n".join(rows)


def render(text: str) -> str:
    """The page with every generated block filled anew."""
    for name, make in (("kinds", kinds), ("hooks", hooks), ("plugins", plugins)):
        start, end = f"<!-- generated: {name} -->", "<!-- end -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        block = f"{start}\n{make()}\n{end}"
        text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]
    return text


def guide() -> str:
    """The page of examples: per kind what it is, where it is chosen, its suite and its source."""
    parts = [_GUIDE_HEAD]
    for kind in KINDS:
        chosen = f"`{kind.flag}`" if kind.flag else "the config or the request"
        contract = (inspect.getdoc(kind.contract) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"## {kind.name}\n\n{kind.about[0].upper()}{kind.about[1:]}; chosen by {chosen}. {contract}\n")
        parts.append(f"```python\n{template(kind)}```\n")
        if suite := template(kind, "_conformance"):
            parts.append(f"and its suite, which `CONFORMANCE` names:\n\n```python\n{suite}```\n")
        else:
            parts.append(f"Its suite is `{SUITE_NAMES[kind.name]}` as it stands.\n")
    return "\n".join(parts)


def main() -> int:
    """Command line."""
    pages = {PAGE: render(PAGE.read_text(encoding="utf-8")), GUIDE: guide()}
    if "--check" in sys.argv:
        return int(any(not page.exists() or page.read_text(encoding="utf-8") != text for page, text in pages.items()))
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
