"""The contract of a kind as text for the terminal: hook, methods, suite, and a complete example."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from engine.plugin.kinds import Kind
from engine.plugin.scaffold import template
from engine.plugin.testing.table import SUITE_NAMES


def reference(kind: Kind[Any]) -> str:
    """What one must know to write a plugin of the kind."""
    from engine.plugin import spec

    hook = getattr(spec, kind.hook)
    signature = str(inspect.signature(hook)).replace("'", "")
    parts = [
        f"{kind.name}: {kind.about}",
        f"chosen by    {kind.flag or 'the model configuration or the request'}",
        f"registered   [project.entry-points.\"{kind.group}\"]  name = \"module\"",
        f"tested by    engine.plugin.testing.{SUITE_NAMES[kind.name]}",
        "",
        f"{kind.hook}{signature}",
        _indented(inspect.getdoc(hook)),
        "",
        f"class engine.plugin.{kind.contract.__name__}",
        _indented(inspect.getdoc(kind.contract)),
        *_methods(kind.contract),
        "",
        "A complete example:",
        "",
        _indented(template(kind)),
    ]
    return "\n".join(parts)


def _methods(contract: type) -> list[str]:
    required: frozenset[str] = getattr(contract, "__abstractmethods__", frozenset())
    lines = []
    for name, member in vars(contract).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        signature = str(inspect.signature(function)).replace("'", "")
        state = "must be there" if name in required else "may be left out"
        lines += ["", f"    {name}{signature}    [{state}]", _indented(inspect.getdoc(function), 8)]
    return lines


def _indented(text: str | None, width: int = 4) -> str:
    return textwrap.indent(text or "", " " * width)
