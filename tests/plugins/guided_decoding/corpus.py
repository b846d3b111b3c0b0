"""JSON schemas as people send them: written for tools, extractions and forms, and drawn at random from the keywords in real use."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]
S, I, N, B = ({"type": name} for name in ("string", "integer", "number", "boolean"))  # noqa: E741 - short for rows of tables
WORDS = ("name", "city", "unit", "query", "id", "title", "price", "tags", "status", "notes", "email", "count", "date", "lang", "items", "owner")


def obj(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> Schema:
    """An object schema; all properties are required unless said otherwise."""
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required, **more}


def arr(items: Any, **more: Any) -> Schema:
    """An array schema."""
    return {"type": "array", "items": items, **more}


def text(**more: Any) -> Schema:
    """A string schema."""
    return {"type": "string", **more}


def written() -> list[Schema]:
    """Schemas of the kinds that applications send."""
    closed: dict[str, Any] = {"additionalProperties": False}
    weather = obj({"city": text(maxLength=20), "unit": {"enum": ["celsius", "fahrenheit"]}}, **closed)
    person = obj({"name": text(minLength=1, maxLength=16), "age": {"type": "integer", "minimum": 0, "maximum": 150}})
    pydantic = {
        "$defs": {"Item": obj({"sku": text(pattern="^[A-Z]{2}[0-9]{3}$"), "quantity": {"type": "integer", "minimum": 1, "maximum": 99}})},
        **obj({"items": arr({"$ref": "#/$defs/Item"}, minItems=1, maxItems=3), "paid": B}, title="Order"),
    }
    tree = {
        "definitions": {"node": obj({"value": {"type": "integer", "minimum": 0, "maximum": 9}, "children": arr({"$ref": "#/definitions/node"}, maxItems=2)})},
        "$ref": "#/definitions/node",
    }
    shape = {"oneOf": [
        obj({"kind": {"const": "circle"}, "radius": {"type": "number", "minimum": 0, "maximum": 10}}, **closed),
        obj({"kind": {"const": "square"}, "side": {"type": "integer", "minimum": 1, "maximum": 9}}, **closed),
    ]}  # fmt: skip
    maybe = {"anyOf": [text(maxLength=8), {"type": "null"}]}
    return [
        weather, person, pydantic, tree, shape, arr(shape, minItems=1, maxItems=2), obj({"value": maybe, "other": maybe}, ["value"]),
        obj({"sentiment": {"enum": ["positive", "neutral", "negative"]}, "confidence": {"type": "number", "minimum": 0, "maximum": 1}}, **closed),
        obj({"steps": arr(obj({"explanation": text(maxLength=24), "output": text(maxLength=12)}, **closed), maxItems=3), "final_answer": text(maxLength=12)}, **closed),
        obj({"name": {"const": "get_weather"}, "arguments": weather}, **closed),
        obj({"date": text(format="date"), "at": text(format="date-time")}), obj({"id": text(format="uuid")}),
        obj({"contact": text(format="email"), "host": text(format="ipv4")}),
        obj({"entities": arr(obj({"text": text(maxLength=12), "label": {"enum": ["PER", "LOC", "ORG"]}}), maxItems=3)}),
        obj({"sql": text(pattern="^SELECT [a-z]{1,8} FROM [a-z]{1,8}$")}), obj({"phone": text(pattern="^\\+?[0-9]{5,10}$")}),
        obj({"x": {"type": ["string", "null"]}, "y": {"type": ["integer", "boolean"]}}),
        obj({"point": {"type": "array", "prefixItems": [N, N], "items": False, "minItems": 2, "maxItems": 2}}),
        obj({"metadata": {"type": "object", "additionalProperties": {"enum": ["a", "b"]}, "maxProperties": 2}}),
        obj({"flags": {"type": "object", "patternProperties": {"^f_[a-z]$": B}, "additionalProperties": False}}),
        {"allOf": [obj({"a": I}), obj({"b": B})]}, {"allOf": [person]}, {"enum": [1, 2, 3]}, {"const": {"ok": True}},
        obj({"level": {"enum": [1, 2, 3, None]}, "mode": {"const": 7}}), obj({}, **closed), arr(B, minItems=2, maxItems=2),
        obj({"temperature": {"type": "number", "exclusiveMinimum": -50, "exclusiveMaximum": 60}, "humidity": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}}),
        obj({"choice": {"enum": ["yes", "no"]}, "why": text(maxLength=20)}, ["choice"], **closed), obj({"a b": I, "c\"d": I, "e\\f": I}),
    ]  # fmt: skip


def drawn(count: int, seed: int = 0) -> list[Schema]:
    """Random schemas. All of them can be satisfied, and end soon."""
    chance = random.Random(seed)
    return [_object(chance, 2) if chance.random() < 0.8 else _any(chance, 2) for _ in range(count)]


def corpus() -> list[Schema]:
    """Everything, more than 300."""
    return [*written(), *drawn(290)]


def _any(chance: random.Random, depth: int) -> Schema:
    leaves = [_string, _string, _integer, _number, _enum, _const, lambda _: dict(B), lambda _: {"type": "null"}, _types]
    inner = [lambda c: _object(c, depth - 1), lambda c: _array(c, depth - 1), lambda c: _union(c, depth - 1), lambda c: _defs(c, depth - 1)]
    make = chance.choice(leaves + (inner * 2 if depth > 0 else []))
    schema = make(chance)
    if chance.random() < 0.15:
        schema["description"] = "What it is for."
    return schema


def _object(chance: random.Random, depth: int) -> Schema:
    names = chance.sample(WORDS, chance.randint(1, 4))
    schema = obj({name: _any(chance, depth) for name in names}, [name for name in names if chance.random() < 0.75])
    draw = chance.random()
    if draw < 0.5:
        schema["additionalProperties"] = False
    elif draw < 0.55:
        schema["additionalProperties"] = _integer(chance)
    if chance.random() < 0.1:
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _array(chance: random.Random, depth: int) -> Schema:
    if chance.random() < 0.15:
        parts = [_any(chance, 0) for _ in range(chance.randint(1, 3))]
        return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}
    least = chance.randint(0, 2)
    schema = arr(_any(chance, depth), minItems=least, maxItems=least + chance.randint(0, 2) or 1)
    if chance.random() < 0.05:
        schema["uniqueItems"] = True
    return schema


def _union(chance: random.Random, depth: int) -> Schema:
    if chance.random() < 0.5:
        return {"anyOf": [_any(chance, depth) for _ in range(chance.randint(2, 3))]}
    if chance.random() < 0.5:
        return {"oneOf": [_string(chance), _integer(chance), {"type": "null"}]}
    return {"oneOf": [obj({"type": {"const": kind}, "value": _any(chance, 0)}) for kind in ("a", "b")]}


def _defs(chance: random.Random, depth: int) -> Schema:
    # Definitions belong to the root; a reference here would not find them, so the schema stands for itself in allOf.
    return {"allOf": [_object(chance, depth)]}


def _string(chance: random.Random) -> Schema:
    draw = chance.random()
    if draw < 0.45:
        return text(maxLength=chance.randint(1, 12))
    if draw < 0.55:
        return text(minLength=1, maxLength=chance.randint(2, 12))
    if draw < 0.8:
        patterns = ("^[a-z]{1,6}$", "^[A-Z][a-z]{0,4}$", "^\\d{2}:\\d{2}$", "^(yes|no)$", "^[0-9a-f]{4}$", "^[^0-9]{1,5}$", "[a-z]")
        return text(pattern=chance.choice(patterns))
    if draw < 0.95:
        return text(format=chance.choice(("date", "time", "date-time", "uuid", "ipv4", "email")))
    return text()


def _integer(chance: random.Random) -> Schema:
    schema: Schema = {"type": "integer", "minimum": chance.randint(-20, 20)}
    schema["maximum"] = schema["minimum"] + chance.randint(0, 500)
    if chance.random() < 0.1:
        schema["multipleOf"] = chance.choice((2, 5))
        schema["minimum"], schema["maximum"] = 0, 100
    return schema


def _number(chance: random.Random) -> Schema:
    low = chance.choice((0, -1, 0.5, 10))
    return {"type": "number", chance.choice(("minimum", "exclusiveMinimum")): low, "maximum": low + chance.choice((1, 2.5, 100))}


def _enum(chance: random.Random) -> Schema:
    values: list[Any] = list(chance.sample(("red", "green", "blue", "dark blue", "São", 'a"b'), chance.randint(1, 4)))
    if chance.random() < 0.25:
        values += [1, None, True]
        return {"enum": values}
    return {"enum": values} | ({"type": "string"} if chance.random() < 0.5 else {})


def _const(chance: random.Random) -> Schema:
    return {"const": chance.choice(("on", 5, None, True, "two words"))}


def _types(chance: random.Random) -> Schema:
    return {"type": chance.choice((["boolean", "null"], ["integer", "null"], ["null", "boolean"]))}
