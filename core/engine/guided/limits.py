"""What a constraint may be before anybody compiles it: sizes, depth, references, types of its parts."""

from __future__ import annotations

import json
import re
from typing import Any

from engine.plugin.request import GuideSpec

#: Longest constraint in bytes of JSON, deepest schema, most parts of one, most values of an enum, most choices.
MAX_BYTES, MAX_DEPTH, MAX_PARTS, MAX_ENUM, MAX_CHOICES = 262_144, 64, 20_000, 5_000, 5_000
MAX_REGEX, MAX_CHOICE = 8_192, 16_384
#: Largest count in a regular expression's {n,m}, and in minItems, maxLength and the like of a schema.
MAX_REPEAT, MAX_COUNT = 10_000, 100_000

_REPEAT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains")
_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
#: Keywords whose value is a schema, a list of schemas, and an object of schemas.
_ONE = (
    "additionalProperties", "additionalItems", "contains", "propertyNames", "not", "if", "then", "else", "unevaluatedItems",
    "unevaluatedProperties",
)  # fmt: skip
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


class WrongConstraint(ValueError):
    """The constraint cannot be meant; ``str`` says why, without the field's name."""


def check(spec: GuideSpec) -> None:
    """Raise WrongConstraint for what no backend should see."""
    kind, value = spec.kind, spec.value
    if kind in ("json", "structural_tag"):
        _check_size(value)
    if kind == "json":
        check_schema(value)
    elif kind == "regex":
        check_regex(value)
    elif kind == "choice":
        _check_choices(value)
    elif kind == "grammar":
        _check_grammar(value)
    elif kind == "structural_tag":
        _check_tags(value)
    pattern = spec.options.get("whitespace_pattern")
    if pattern is not None:
        check_regex(pattern)


def _check_size(value: Any) -> None:
    try:
        length = len(json.dumps(value, allow_nan=False))
    except RecursionError as error:
        raise WrongConstraint(f"it is nested more than {MAX_DEPTH} levels deep") from error
    except ValueError as error:
        raise WrongConstraint("a number in it is none, or too large for one") from error
    if length > MAX_BYTES:
        raise WrongConstraint(f"it has {length} bytes; allowed: {MAX_BYTES}")


def check_schema(root: Any) -> None:
    """Structure of a JSON schema. Each level is looked at once; references are followed by nobody here."""
    if not isinstance(root, (dict, bool)):
        raise WrongConstraint("a JSON schema is an object or a boolean")
    pending: list[tuple[Any, int]] = [(root, 1)]
    parts = 0
    while pending:
        schema, depth = pending.pop()
        parts += 1
        if depth > MAX_DEPTH:
            raise WrongConstraint(f"it is nested more than {MAX_DEPTH} levels deep")
        if parts > MAX_PARTS:
            raise WrongConstraint(f"it has more than {MAX_PARTS} parts")
        if isinstance(schema, bool):
            continue
        if not isinstance(schema, dict):
            raise WrongConstraint(f"a schema in it is {_shown(schema)}, neither an object nor a boolean")
        _check_keywords(schema)
        pending += ((child, depth + 1) for child in _children(schema))


def _check_keywords(schema: dict[str, Any]) -> None:
    types = schema.get("type", [])
    for name in [types] if isinstance(types, str) else types if isinstance(types, list) else [types]:
        if name not in _TYPES:
            raise WrongConstraint(f"type {_shown(name)} is unknown; known: {', '.join(_TYPES)}")
    reference = schema.get("$ref")
    if reference is not None and not (isinstance(reference, str) and reference.startswith("#")):
        raise WrongConstraint(f"$ref {_shown(reference)} points outside the schema; only #… is followed")
    values = schema.get("enum")
    if values is not None and (not isinstance(values, list) or not 0 < len(values) <= MAX_ENUM):
        raise WrongConstraint(f"an enum must be a list of 1 to {MAX_ENUM} values")
    _check_patterns(schema)
    _check_counts(schema)


def _check_patterns(schema: dict[str, Any]) -> None:
    if "pattern" in schema:
        check_regex(schema["pattern"])
    for name in schema.get("patternProperties", ()):
        check_regex(name)
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise WrongConstraint("required must be a list of strings")


def _check_counts(schema: dict[str, Any]) -> None:
    for key in _COUNTS:
        count = schema.get(key, 0)
        if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 <= count <= MAX_COUNT or count % 1:
            raise WrongConstraint(f"{key} {_shown(count)} is not an integer from 0 to {MAX_COUNT}")
    for low, high in (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties")):
        if high in schema and schema.get(low, 0) > schema[high]:
            raise WrongConstraint(f"{low} {schema[low]} is above {high} {schema[high]}")


def _children(schema: dict[str, Any]) -> list[Any]:
    found = [schema[key] for key in _ONE if key in schema]
    items = schema.get("items")
    found += items if isinstance(items, list) else [] if items is None else [items]
    for key in _LIST:
        branches = schema.get(key, [])
        if not isinstance(branches, list) or (key in schema and key != "prefixItems" and not branches):
            raise WrongConstraint(f"{key} must be a list of schemas")
        found += branches
    for key in _NAMED:
        named = schema.get(key, {})
        if not isinstance(named, dict):
            raise WrongConstraint(f"{key} must be an object of schemas")
        found += named.values()
    return found


def check_regex(pattern: Any) -> None:
    """Size and counts of a regular expression."""
    if not isinstance(pattern, str):
        raise WrongConstraint(f"{_shown(pattern)} is no regular expression")
    if len(pattern) > MAX_REGEX:
        raise WrongConstraint(f"a regular expression has {len(pattern)} characters; allowed: {MAX_REGEX}")
    for match in _REPEAT.finditer(pattern):
        for number in match.groups():
            if len(number) > 9 or int(number or 0) > MAX_REPEAT:
                raise WrongConstraint(f"a regular expression repeats {number[:12]} times; allowed: {MAX_REPEAT}")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        # Other dialects know a few things that Python's does not: classes by property, possessive groups of other spelling.
        if not re.search(r"\\[pP]\{|\(\?<[A-Za-z]|\\[uxz/]", pattern):
            raise WrongConstraint(f"the regular expression is not valid: {error}") from error


def _check_choices(value: Any) -> None:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CHOICES:
        raise WrongConstraint(f"choices must be a list of 1 to {MAX_CHOICES} texts")
    for choice in value:
        if not isinstance(choice, str) or not 0 < len(choice) <= MAX_CHOICE:
            raise WrongConstraint(f"a choice is {_shown(choice)}; it must be a text of 1 to {MAX_CHOICE} characters")
    if sum(map(len, value)) > MAX_BYTES:
        raise WrongConstraint(f"the choices have more than {MAX_BYTES} characters")


def _check_grammar(value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise WrongConstraint("it is empty")
    if len(value) > MAX_BYTES:
        raise WrongConstraint(f"it has {len(value)} characters; allowed: {MAX_BYTES}")
    for match in _REPEAT.finditer(value):
        if any(len(number) > 9 or int(number or 0) > MAX_REPEAT for number in match.groups()):
            raise WrongConstraint(f"it repeats something more than {MAX_REPEAT} times")
    if value.count("(") > 10_000 or _deepest(value) > MAX_DEPTH:
        raise WrongConstraint(f"its parentheses are nested more than {MAX_DEPTH} levels deep")


def _deepest(text: str) -> int:
    depth = most = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        most = max(most, depth)
    return most


def _check_tags(value: Any) -> None:
    if not isinstance(value, dict) or ("format" not in value) == ("structures" not in value):
        raise WrongConstraint("a structural tag has either a format, or structures and triggers")
    if "format" in value:
        if not isinstance(value["format"], dict):
            raise WrongConstraint("the format of a structural tag must be an object")
        return
    structures, triggers = value["structures"], value.get("triggers")
    if not isinstance(structures, list) or not structures or not isinstance(triggers, list) or not triggers:
        raise WrongConstraint("structures and triggers must be lists with at least one element")
    if not all(isinstance(trigger, str) and trigger for trigger in triggers):
        raise WrongConstraint("triggers must be texts")
    for item in structures:
        if not isinstance(item, dict) or not isinstance(item.get("begin"), str) or not isinstance(item.get("end"), str):
            raise WrongConstraint("a structure has begin, schema and end")
        check_schema(item.get("schema", {}))
        if not any(item["begin"].startswith(trigger) for trigger in triggers):
            raise WrongConstraint(f"no trigger is the beginning of {_shown(item['begin'])}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
