"""Reads ``--config FILE.yaml``: a flat mapping of flag names to values."""

from __future__ import annotations

import os
from typing import Any

from engine.args.flag import WITHOUT_VALUE, Flag, Problem
from engine.args.grammar import Grammar
from engine.args.values import BadValue, accept, read

_STRUCTURED = frozenset(("json", "literal", "counts"))
_LISTS = frozenset(("words", "each", "list", "floats", "names"))


def read_file(path: str, grammar: Grammar) -> tuple[dict[str, object], list[Problem]]:
    """Values by Python name, and what is wrong with the file, each problem with its line."""
    if not path.endswith((".yaml", ".yml")):
        return {}, [Problem(f"--config {path}: not a .yaml or .yml file.", "rename the file")]
    if not os.path.isfile(path):
        return {}, [Problem(f"--config {path}: no such file.", "check the path")]
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            root = yaml.compose(file, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        return {}, [Problem(f"--config {path}: cannot be read ({error}).")]
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        return {}, [Problem(f"{path}:{line}: not valid YAML ({getattr(error, 'problem', error)}).")]
    if root is None:
        return {}, []
    if not isinstance(root, yaml.MappingNode):
        return {}, [Problem(f"{path}:1: not a mapping of flag names to values.", "write lines such as port: 8001")]
    return _read_mapping(path, root, grammar)


def _read_mapping(path: str, root: Any, grammar: Grammar) -> tuple[dict[str, object], list[Problem]]:
    import yaml

    values: dict[str, object] = {}
    problems: list[Problem] = []
    constructor = yaml.SafeLoader("")
    for key, node in root.value:
        where = f"{path}:{key.start_mark.line + 1}"
        found = grammar.find("--" + str(key.value).lstrip("-").replace("_", "-"))
        if isinstance(found, Problem):
            problems.append(Problem(f"{where}: {found.cause}", found.fix))
            continue
        full, flag = found
        if flag.dest in values:
            problems.append(Problem(f"{where}: {flag.name} is given twice.", "remove one of the lines"))
            continue
        try:
            plain = constructor.construct_object(node, deep=True)
            values[flag.dest] = _value(flag, full, plain, str(node.value))
        except BadValue as error:
            problems.append(Problem(f"{where}: {flag.name} {error}.", error.fix or flag.example()))
        except yaml.YAMLError as error:
            problems.append(Problem(f"{where}: {flag.name}: not valid YAML ({getattr(error, 'problem', error)})."))
    return values, problems


def _value(flag: Flag, full: str, plain: object, text: str) -> object:
    """One entry. Scalars are read like words of the command line; lists and mappings may be written as such."""
    if isinstance(plain, dict):
        if flag.type not in _STRUCTURED:
            raise BadValue("takes no mapping")
        return accept(flag, plain)
    if isinstance(plain, list):
        if flag.type not in _LISTS:
            raise BadValue("takes one value, not a list")
        return accept(flag, [str(item) for item in plain] if flag.type != "floats" else plain)
    if plain is None:
        return flag.initial()
    if flag.type in WITHOUT_VALUE:
        if not isinstance(plain, bool):
            raise BadValue(f"{text}: neither true nor false")
        if full != flag.name:
            return not plain if plain else flag.initial()
        # as on a command line, false leaves a flag out; only a pair can be switched off
        return plain if plain or flag.type == "pair" else flag.initial()
    try:
        value = read(flag, text)
    except BadValue as error:
        raise BadValue(f"{text}: {error}", error.fix) from None
    return [value] if flag.type in ("words", "each") else value
