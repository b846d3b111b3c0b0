"""What a chat template expects of its messages, read from its syntax tree."""

from __future__ import annotations

import jinja2
import msgspec
from jinja2 import nodes


class TemplateHabits(msgspec.Struct, frozen=True):
    """``parts``: it walks over message content as a list. ``text_arguments``: it concatenates tool-call arguments as text.
    ``developer``: it knows that role."""

    parts: bool = False
    text_arguments: bool = False
    developer: bool = False


def inspect_template(source: str, environment: jinja2.Environment) -> TemplateHabits:
    """Habits of a template; raises ``jinja2.TemplateSyntaxError`` for one that does not parse."""
    tree = environment.parse(source)
    aliases = {"content"}
    for assign in tree.find_all(nodes.Assign):
        if isinstance(assign.target, nodes.Name) and _is_content(assign.node, aliases):
            aliases.add(assign.target.name)
    loops = any(_is_content(loop.iter, aliases) for loop in tree.find_all(nodes.For))
    added = any(_adds_arguments(node) for node in tree.find_all((nodes.Add, nodes.Concat)))
    as_json = any(_names(node.node, "arguments") for node in tree.find_all(nodes.Filter) if node.name == "tojson" and node.node)
    return TemplateHabits(parts=loops, text_arguments=added and not as_json, developer="developer" in source)


def _is_content(node: nodes.Node | None, aliases: set[str]) -> bool:
    """Whether an expression is a message's content itself (possibly filtered), not something taken out of it."""
    while isinstance(node, nodes.Filter):
        node = node.node
    if isinstance(node, nodes.Name):
        return node.name in aliases
    return node is not None and _names(node, "content")


def _names(node: nodes.Node, name: str) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr == name
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == name


def _adds_arguments(node: nodes.Node) -> bool:
    return any(_names(child, "arguments") for child in node.iter_child_nodes())
