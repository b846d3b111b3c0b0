"""Turns what was written on a command line, in a YAML file or in Python into the value of a flag."""

from __future__ import annotations

from engine.args.flag import Flag
from engine.args.spelling import nearest

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
_WORDS = {"true": True, "false": False}


class BadValue(Exception):
    """The text cannot be a value of the flag. ``str`` says what was expected; ``fix`` is a whole suggestion, if there is one."""

    def __init__(self, reason: str, fix: str | None = None) -> None:
        super().__init__(reason)
        self.fix = fix


def read(flag: Flag, text: str) -> object:
    """The value that ``text`` stands for; for ``each`` and ``words`` one item. Raises :class:`BadValue`."""
    kind = flag.type
    if kind in ("str", "each", "words"):
        value: object = text
    elif kind == "text":
        value = None if text in ("", "None") else text
    elif kind == "int":
        value = _integer(text)
    elif kind == "float":
        value = _number(text)
    elif kind in ("flag", "pair", "switch"):
        value = _truth(text)
    elif kind == "json":
        value = None if text in ("", "None") else _object(text)
    elif kind == "literal":
        value = None if text in ("", "None") else _literal(text)
    elif kind == "list":
        value = _strings(text)
    else:
        value = _parts(kind, text)
    check_choice(flag, value)
    return value


def check_choice(flag: Flag, value: object) -> None:
    """Refuse a value outside a literal list of choices; plugins' names are checked against what is installed, elsewhere."""
    if not flag.choices or flag.kind is not None or value is None or value == flag.default:
        return
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if str(item) not in flag.choices:
            near = nearest(str(item), flag.choices)
            raise BadValue(f"not one of {', '.join(flag.choices)}", f"{flag.name} {near}" if near else None)


def _integer(text: str) -> int:
    body, factor = (text[:-1], _SUFFIXES[text[-1]]) if text[-1:] in _SUFFIXES else (text, 1)
    try:
        return int(body) * factor
    except ValueError:
        raise BadValue("not an integer") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadValue("not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise BadValue("not a finite number")
    return value


def _truth(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise BadValue("neither true nor false")
    return _WORDS[text.lower()]


def _json(text: str) -> object:
    import json

    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise BadValue(f"not valid JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise BadValue("not valid JSON (nested too deeply)") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadValue(f"not an unambiguous JSON object (the key {twice!r} occurs twice)")
    return found


def _object(text: str) -> dict[str, object]:
    value = _json(text)
    if not isinstance(value, dict):
        raise BadValue("not a JSON object")
    return value


def _literal(text: str) -> object:
    """JSON, or the Python spelling of the same as a courtesy."""
    try:
        value = _json(text)
    except BadValue:
        import ast

        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BadValue("neither an integer nor a JSON object") from None
    if isinstance(value, bool) or not isinstance(value, (int, dict)):
        raise BadValue("neither an integer nor a JSON object")
    return value


def _strings(text: str) -> list[str]:
    value = _json(text)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadValue('not a JSON list of strings, such as ["*"]')
    return value


def _parts(kind: str, text: str) -> object:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind == "names":
        return parts
    if kind == "floats":
        return [_number(part) for part in parts]
    counts: dict[str, int] = {}
    for part in parts:
        key, sign, number = part.partition("=")
        if not sign:
            raise BadValue(f"{part!r} is not KEY=INT")
        if counts.setdefault(key.lower(), _integer(number)) != _integer(number):
            raise BadValue(f"{key!r} is given twice with different numbers")
    return counts


_PYTHON: dict[str, tuple[tuple[type, ...], str]] = {
    "flag": ((bool,), "True or False"), "pair": ((bool,), "True, False or None"), "switch": ((bool,), "True, False or None"),
    "str": ((str,), "a string"), "text": ((str,), "a string or None"), "int": ((int,), "an integer"), "float": ((int, float), "a number"),
    "json": ((dict,), "a dict"), "literal": ((int, dict), "an integer or a dict"), "counts": ((dict,), "a dict of integers"),
    "words": ((list, tuple, str), "a string or a list of strings"), "each": ((list, tuple, str), "a string or a list of strings"),
    "names": ((list, tuple, str), "a string or a list of strings"), "list": ((list, tuple), "a list of strings"),
    "floats": ((list, tuple), "a list of numbers"),
}  # fmt: skip


def accept(flag: Flag, value: object) -> object:
    """A value given in Python (or by YAML), checked and in the form that :func:`read` gives it. Strings are read where they can be."""
    if value is None:
        if flag.default is not None and flag.type not in ("text", "json"):
            raise BadValue(f"None; expected {_PYTHON[flag.type][1]}")
        return None
    types, expected = _PYTHON[flag.type]
    if isinstance(value, str) and flag.type not in ("words", "each"):
        return read(flag, value)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise BadValue(f"of type {type(value).__name__}; expected {expected}")
    if flag.type in ("words", "each", "names", "list"):
        value = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
        if not all(isinstance(item, str) for item in value):
            raise BadValue(f"not {expected}")
    elif flag.type == "float":
        value = _number(str(value))
    elif flag.type == "counts":
        value = _parts("counts", ",".join(f"{key}={number}" for key, number in value.items()))  # type: ignore[attr-defined]
    check_choice(flag, value)
    return value
