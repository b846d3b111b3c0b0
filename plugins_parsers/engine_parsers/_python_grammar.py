"""Constraints under which a model writes nothing but Python calls: names, types, enumerations and required arguments of its tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.plugin import GuideSpec
from engine_parsers._formats import Format, Start
from engine_parsers._grammar import free_text, parameters

#: Values of any kind, as the parser reads them.
_VALUES = r"""
value ::= string | number | "True" | "False" | "None" | list | dict
string ::= "\"" ([^"\\\n] | "\\" ["\\/nrt'])* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,17})
number ::= integer ("." [0-9]{1,17})?
list ::= "[" (value (", " value)*)? "]"
dict ::= "{" (string ": " value (", " string ": " value)*)? "}"
"""
_TYPES = {
    "string": "string", "integer": "integer", "number": "number", "boolean": '("True" | "False")', "null": '"None"', "array": "list",
    "object": "dict",
}  # fmt: skip


class PythonFormat(Format):
    """A format whose enforced calls are Python: ``around`` stands before and after all of them, ``separator`` between two."""

    def __init__(self, start: Start, markers: Sequence[str] = (), *, around: tuple[str, str], separator: str) -> None:
        super().__init__(start, markers, around=around, separator=separator)

    def grammar(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """See the contract. None where a name of a tool or argument is no Python name."""
        if not _writable(tools):
            return None
        before, after = self._around
        return python_calls(tools, before=before, after=after, separator=self._separator, parallel=parallel)

    def offer(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """See the contract: calls begin with the marker, or with the name of a tool behind the bracket. None as for :meth:`grammar`."""
        if not _writable(tools):
            return None
        before, after = self._around
        marked = any(before.startswith(marker) for marker in self.markers())
        firsts = [(before, "call")] if marked else [(f"{before}{tool['function']['name']}(", f"rest{i}") for i, tool in enumerate(tools)]
        rules = _rules(tools)
        more = f" ({json.dumps(self._separator)} call)*" if parallel else ""
        tags = [
            {"type": "tag", "begin": begin, "content": {"type": "grammar", "grammar": f"root ::= {rule}{more}\n{rules}"}, "end": after}
            for begin, rule in firsts
        ]  # fmt: skip
        triggers = [begin.strip() for begin, _ in firsts]
        return free_text(triggers, tags, parallel=parallel, markers=self.markers())


def _writable(tools: Sequence[dict[str, Any]]) -> bool:
    """Whether all names of tools and arguments are Python names."""
    names = [str(name) for tool in tools for name in parameters(tool).get("properties") or ()]
    called = [part for tool in tools for part in tool["function"]["name"].split(".")]
    return all(name.isidentifier() for name in (*names, *called))


def python_calls(tools: Sequence[dict[str, Any]], *, before: str, after: str, separator: str, parallel: bool) -> GuideSpec:
    """Calls ``NAME(KEY=VALUE, …)`` in the order of the tools' properties, with ``separator`` between two, in ``before`` and ``after``."""
    more = f" ({json.dumps(separator)} call)*" if parallel else ""
    root = f"root ::= [\\n]{{0,2}} {json.dumps(before)} call{more} {json.dumps(after)}"
    return GuideSpec("grammar", f"{root}\n{_rules(tools)}")


def _rules(tools: Sequence[dict[str, Any]]) -> str:
    """``call``, a call of any of the tools, and the rules that it needs; ``restN`` is that of one tool behind its parenthesis."""
    calls = " | ".join(f"call{place}" for place in range(len(tools)))
    return "\n".join([f"call ::= {calls}", *(_call(place, tool) for place, tool in enumerate(tools))]) + _VALUES


def _call(place: int, tool: dict[str, Any]) -> str:
    """The rules of one tool. ``first`` rules stand before an argument was written, ``next`` rules after one."""
    schema = parameters(tool)
    properties: dict[str, Any] = schema.get("properties") or {}
    required = set(schema.get("required") or ())
    name = json.dumps(tool["function"]["name"] + "(", ensure_ascii=False)
    lines = [f"call{place} ::= {name} rest{place}", f'rest{place} ::= first{place}x0 ")"']
    for number, (key, value) in enumerate(properties.items()):
        written = f"{json.dumps(key + '=', ensure_ascii=False)} {_value(value)} next{place}x{number + 1}"
        skipped_first = "" if key in required else f" | first{place}x{number + 1}"
        skipped_next = "" if key in required else f" | next{place}x{number + 1}"
        lines.append(f"first{place}x{number} ::= {written}{skipped_first}")
        lines.append(f'next{place}x{number} ::= ", " {written}{skipped_next}')
    end = len(properties)
    return "\n".join([*lines, f'first{place}x{end} ::= ""', f'next{place}x{end} ::= ""'])


def _value(schema: Any) -> str:
    """A rule for values of a schema: its enumeration or constant, else its types, else anything."""
    if not isinstance(schema, dict):
        return "value"
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(listed, list) and listed:
        return "(" + " | ".join(json.dumps(_literal(value), ensure_ascii=False) for value in listed) + ")"
    stated = schema.get("type")
    names = [stated] if isinstance(stated, str) else stated
    if not isinstance(names, list) or not names or not set(names) <= set(_TYPES):
        return "value"
    return "(" + " | ".join(_TYPES[name] for name in names) + ")"


def _literal(value: Any) -> str:
    """A JSON value as Python; texts in JSON's quotation marks, which the parser reads."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
