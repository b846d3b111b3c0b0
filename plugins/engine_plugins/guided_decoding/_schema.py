"""Walks a JSON schema and finds the first feature that a backend does not enforce."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

STRING = ("minLength", "maxLength", "pattern", "format")
NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
ARRAY = (
    "items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains", "minContains", "maxContains",
    "unevaluatedItems",
)  # fmt: skip
OBJECT = (
    "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties",
    "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties",
)  # fmt: skip
COMBINING = ("$ref", "anyOf", "oneOf", "allOf", "not", "if", "$dynamicRef", "$recursiveRef")
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
#: What JSON escapes, or what not every library knows, in a pattern.
_ESCAPED = re.compile(r'["\x00-\x1f]|\\[\\nrtfvbB0xucpPkAZzG]|\(\?(?!:)')
#: A pattern whose characters stand for themselves inside JSON's quotation marks, even where the library does not look.
_PLAIN_PATTERN = re.compile(
    r"(?: [A-Za-z0-9 _\-:@/,#%&=!~'<>;] | \\[dw.\-+*?()\[\]{}|/^$] | [+*?|()^$] | \(\?: | \{\d{1,4}(?:,\d{0,4})?\} "
    r"| \[ (?: [A-Za-z0-9 _:@/,#%&=!~'<>;.+*?(){}|$\-] | \\[dw.\-+*?()\[\]{}|/^$] )+ \] )*", re.VERBOSE
)


@dataclass(frozen=True)
class Features:
    """What a backend enforces. The sets name keywords per type; ``formats`` those of strings.

    ``siblings``: combining keywords may stand beside others. ``all_of``: allOf may have several branches.
    ``one_of``: oneOf whose branches exclude each other visibly. ``recursion``: $ref may lead back.
    ``anything``: a schema may allow any JSON. ``together``: pattern, format and lengths may be combined.
    ``patterns``: "any"; "classes": such as name no character that JSON escapes; "plain": nor match one by a class.
    ``mixed_enum``: enums may hold other values than strings. ``empty_array``: maxItems may be 0.
    ``escaped_names``: names may.
    ``optional``: objects may have members that they need not have.
    ``escapes``: names and values may hold characters that JSON escapes.
    """

    string: frozenset[str]
    formats: frozenset[str]
    number: frozenset[str]
    integer: frozenset[str]
    array: frozenset[str]
    object: frozenset[str]
    siblings: bool = False
    all_of: bool = False
    one_of: bool = True
    recursion: bool = False
    anything: bool = False
    patterns: str = "plain"
    together: bool = False
    mixed_enum: bool = True
    empty_array: bool = True
    escapes: bool = True
    escaped_names: bool = True
    optional: bool = True


def first_unmet(schema: Any, features: Features) -> str | None:
    """The first feature of the schema that is not enforced, in words, or None."""
    return next(_Walk(schema, features).unmet(), None)


class _Walk:
    """One schema. The host has checked that it is no larger or deeper than it may be."""

    def __init__(self, root: Any, features: Features) -> None:
        self._root = root
        self._features = features
        self._seen: set[str] = set()
        self._path: list[str] = []

    def unmet(self) -> Iterator[str]:
        yield from self._check(self._root)

    def _check(self, schema: Any) -> Iterator[str]:
        if schema is False:
            yield "the schema false"
            return
        if schema is True or not isinstance(schema, dict):
            if not self._features.anything:
                yield "a schema without type"
            return
        combining = [key for key in COMBINING if key in schema]
        if combining:
            yield from self._combination(schema, combining)
        if "const" in schema or "enum" in schema:
            yield from self._values(schema)
        elif not combining or self._features.siblings:
            yield from self._typed(schema, bare=not combining)

    def _combination(self, schema: dict[str, Any], combining: list[str]) -> Iterator[str]:
        beside = [key for key in ("type", "const", "enum", *STRING, *NUMBER, *ARRAY, *OBJECT) if key in schema]
        if (len(combining) > 1 or beside) and not self._features.siblings:
            yield f"{combining[0]} beside {[*combining[1:], *beside][0]}"
        for key in combining:
            if key == "$ref":
                yield from self._reference(schema[key])
            elif key in ("anyOf", "oneOf", "allOf"):
                yield from self._branches(key, schema[key])
            else:
                yield key

    def _branches(self, key: str, branches: list[Any]) -> Iterator[str]:
        if key == "allOf" and len(branches) > 1 and not self._features.all_of:
            yield "allOf with several branches"
        if key == "oneOf" and not (self._features.one_of and exclusive([self._resolved(branch) for branch in branches])):
            yield "oneOf whose branches may overlap"
        for branch in branches:
            yield from self._check(branch)

    def _reference(self, name: Any) -> Iterator[str]:
        target = lookup(self._root, name)
        if target is None:
            yield f"$ref {name!r:.80}"
        elif name in self._path:
            if not self._features.recursion:
                yield "recursive $ref"
        elif name not in self._seen:
            self._seen.add(name)
            self._path.append(name)
            yield from self._check(target)
            self._path.pop()

    def _resolved(self, schema: Any) -> Any:
        for _ in range(8):
            if not isinstance(schema, dict) or set(schema) != {"$ref"}:
                break
            schema = lookup(self._root, schema["$ref"])
        return schema

    def _values(self, schema: dict[str, Any]) -> Iterator[str]:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if "const" in schema and "enum" in schema:
            yield "const beside enum"
        yield from self._names(value for value in values if isinstance(value, str))
        if not self._features.mixed_enum and not all(isinstance(value, str) for value in values):
            yield "enum of other values than strings"
        types = _types(schema)
        if types and not all(any(is_type(value, name) for name in types) for value in values):
            yield "enum or const beside a type that does not fit"
        beside = [key for key in (*STRING, *NUMBER, *ARRAY, *OBJECT) if key in schema]
        if beside:
            yield f"enum or const beside {beside[0]}"

    def _names(self, names: Iterable[str]) -> Iterator[str]:
        yield from self._escaped(names, self._features.escapes)

    def _escaped(self, names: Iterable[str], taken: bool) -> Iterator[str]:
        if not taken:
            escaped = (name for name in names if json.dumps(name, ensure_ascii=False)[1:-1] != name)
            yield from (f"the text {name!r:.60}, which JSON escapes" for name in escaped)

    def _typed(self, schema: dict[str, Any], *, bare: bool) -> Iterator[str]:
        features = self._features
        allowed = {"string": features.string, "number": features.number, "integer": features.integer, "array": features.array}
        types = _types(schema)
        if not types:
            groups = (("string", STRING), ("number", NUMBER), ("array", ARRAY), ("object", OBJECT))
            types = [name for name, keys in groups if set(keys) & set(schema)]
            if len(types) > 1 or (types and not features.siblings):
                yield f"{next(k for k in (*STRING, *NUMBER, *ARRAY, *OBJECT) if k in schema)} without type"
            if not types and bare and not features.anything:
                yield "a schema without type"
        if len(types) > 1 and any(k in schema for k in (*STRING, *NUMBER, *ARRAY, *OBJECT)) and not features.siblings:
            yield "several types with keywords of one of them"
        for name in types:
            keys = {"string": STRING, "number": NUMBER, "integer": NUMBER, "array": ARRAY, "object": OBJECT}.get(name, ())
            enforced = features.object if name == "object" else allowed.get(name, frozenset())
            yield from (key for key in keys if key in schema and key not in enforced and not _idle(key, schema[key]))
        if "string" in types:
            yield from self._string(schema)
        if "array" in types:
            yield from self._array(schema)
        if "object" in types:
            yield from self._object(schema)

    def _string(self, schema: dict[str, Any]) -> Iterator[str]:
        name = schema.get("format")
        if name is not None and name not in self._features.formats:
            yield f"format {name!r:.60}"
        pattern = schema.get("pattern")
        if pattern is not None and not fits(pattern, self._features.patterns):
            yield f"pattern {pattern!r:.60}"
        groups = [key for key in ("pattern", "format") if key in schema] + (["lengths"] if {"minLength", "maxLength"} & set(schema) else [])
        if len(groups) > 1 and not self._features.together:
            yield f"{groups[0]} beside {groups[1]}"

    def _array(self, schema: dict[str, Any]) -> Iterator[str]:
        items = schema.get("items", True)
        if schema.get("maxItems") == 0 and not self._features.empty_array:
            yield "maxItems 0"
        if isinstance(items, list):
            yield "items as a list (prefixItems is its name now)"
            return
        open_ended = not (items is False and "prefixItems" in schema)
        if items is not False and (open_ended or items is not True):
            yield from self._check(items)
        for item in schema.get("prefixItems", ()):
            yield from self._check(item)

    def _object(self, schema: dict[str, Any]) -> Iterator[str]:
        properties = schema.get("properties", {})
        yield from self._names(properties)
        yield from self._escaped(properties, self._features.escaped_names)
        if not set(schema.get("required", ())) <= set(properties):
            yield "required without the property's schema"
        closed = schema.get("additionalProperties", False) is False
        if not self._features.optional and not (properties and set(schema.get("required", ())) >= set(properties) and closed):
            yield "members that an object need not have"
        for value in properties.values():
            yield from self._check(value)
        more = schema.get("additionalProperties", True)
        if more is not False and "additionalProperties" in schema:
            yield from self._check(more)
        for value in schema.get("patternProperties", {}).values():
            yield from self._check(value)


def lookup(root: Any, name: Any) -> Any:
    """What a local reference (``#``, ``#/…``) points to, or None."""
    if not isinstance(name, str) or not name.startswith("#"):
        return None
    found = root
    for part in filter(None, name[1:].split("/")):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found


def fits(pattern: str, which: str) -> bool:
    """Whether a pattern is among those that :attr:`Features.patterns` names."""
    if which == "any":
        return True
    return (_PLAIN_PATTERN.fullmatch(pattern) is not None) if which == "plain" else _ESCAPED.search(pattern) is None


def exclusive(branches: list[Any]) -> bool:
    """Whether no value fits two of the schemas, as far as their types and constants show."""
    return all(_differ(a, b) for place, a in enumerate(branches) for b in branches[:place])


def _differ(a: Any, b: Any) -> bool:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return False
    values, others = _constants(a), _constants(b)
    if values is not None and others is not None:
        return not values & others
    types, more = set(_types(a)), set(_types(b))
    if types and more and not types & more and not {"number", "integer"} <= types | more:
        return True
    if types != {"object"} or more != {"object"}:
        return False
    shared = set(a.get("required", ())) & set(b.get("required", ())) & set(a.get("properties", {})) & set(b.get("properties", {}))
    return any(_differ(a["properties"][key], b["properties"][key]) for key in shared)


def _constants(schema: dict[str, Any]) -> set[str] | None:
    if "const" in schema:
        return {json.dumps(schema["const"], sort_keys=True)}
    if "enum" in schema:
        return {json.dumps(value, sort_keys=True) for value in schema["enum"]}
    return None


def is_type(value: Any, name: str) -> bool:
    """Whether a JSON value is of a JSON Schema type."""
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str, "number": (int, float), "array": list, "object": dict, "null": type(None), "boolean": bool
    }  # fmt: skip
    return isinstance(value, kinds[name])


def _types(schema: dict[str, Any]) -> list[str]:
    stated = schema.get("type")
    names: Iterable[str] = [stated] if isinstance(stated, str) else stated or []
    return list(names)


def _idle(key: str, value: Any) -> bool:
    """Keywords whose value asks for nothing."""
    return (key == "uniqueItems" and value is False) or (key in ("minItems", "minProperties", "minContains") and value == 0)
