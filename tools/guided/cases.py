"""One row per feature: a constraint, texts that satisfy it and texts that do not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """``name`` is the feature's; ``good`` and ``bad`` are whole outputs. Good JSON values come in the schema's order of properties."""

    name: str
    kind: str
    value: Any
    good: tuple[str, ...]
    bad: tuple[str, ...]
    group: str = "JSON Schema"


def _schema(name: str, schema: Any, good: list[Any], bad: list[Any]) -> Case:
    return Case(name, "json", schema, tuple(map(_text, good)), tuple(map(_text, bad)))


def _text(value: Any) -> str:
    """Written as models write it; a Raw text stays as it is."""
    return value.text if isinstance(value, Raw) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Raw:
    """A text that is no JSON, or JSON in another spelling."""

    text: str


def _typed(kind: str, **keywords: Any) -> dict[str, Any]:
    return {"type": kind, **keywords}


def _object(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required, **more}


STRING, INTEGER, NUMBER, BOOLEAN = ({"type": name} for name in ("string", "integer", "number", "boolean"))
_AB = _object({"a": STRING, "b": INTEGER})
_NODE = _object({"v": INTEGER, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}})

SCHEMAS = (
    _schema("type string", STRING, ["", "a b", 'q"q', "ü"], [1, None, Raw('"a'), Raw('"a\nb"'), Raw('"\x01"')]),
    _schema("type integer", INTEGER, [0, -7, 123], [1.5, "1", Raw("01"), None]),
    _schema("type number", NUMBER, [0, -7, 1.5], ["1", Raw("01"), Raw(".5"), Raw("1."), Raw("1\\b5"), Raw("1\\x5"), None]),
    _schema("type boolean", BOOLEAN, [True, False], [0, "true", None]),
    _schema("type null", _typed("null"), [None], [0, "", "null"]),
    _schema("type array", _typed("array", items=INTEGER), [[], [1], [1, 2]], [["a"], {}, Raw("[1,]")]),
    _schema("type object", _typed("object"), [{}], [[], 1, Raw('{"a"}'), Raw('{"a": 1,}'), Raw("{,}")]),
    _schema("several types", {"type": ["string", "null"]}, ["a", None], [1, True, []]),
    _schema("several types with keywords", {"type": ["string", "integer"], "minimum": 3}, ["a", 4], [1, None]),
    _schema("no type (any JSON)", {}, [1, "a", [], {}, None], [Raw("x")]),
    _schema("schema true in properties", _object({"a": True}), [{"a": 1}, {"a": "x"}], [{}, 1]),
    _schema("keyword without type", {"minLength": 2}, ["ab"], ["a"]),
    _schema("properties, required", _AB, [{"a": "x", "b": 1}], [{"a": "x"}, {"a": 1, "b": 1}, {}, Raw('{"a": "x", "b": 1,}')]),
    _schema("optional properties", _object({"a": STRING, "b": INTEGER}, ["b"]), [{"a": "x", "b": 1}, {"b": 1}], [{"a": "x"}, {}, Raw('{"b": 1,}'), Raw('{"a": "x", "b": 1,}')]),
    _schema("optional properties at the end", _object({"a": STRING, "b": INTEGER}, ["a"]), [{"a": "x", "b": 1}, {"a": "x"}], [{"b": 1}, Raw('{"a": "x",}')]),
    _schema("all properties optional", _object({"a": STRING, "b": INTEGER}, []), [{}, {"a": "x"}], [{"a": 1}, {"b": "x"}, Raw('{"a": "x",}'), Raw("{,}")]),
    _schema("nested objects", _object({"o": _object({"p": _AB})}), [{"o": {"p": {"a": "x", "b": 1}}}], [{"o": {"p": {"a": "x"}}}, {"o": {}}]),
    _schema("additionalProperties false", _object({"a": INTEGER}, additionalProperties=False), [{"a": 1}], [{"a": 1, "b": 2}, {"b": 1}]),
    _schema("additionalProperties schema", _typed("object", additionalProperties=INTEGER), [{}, {"x": 1, "y": 2}], [{"x": "a"}, {"x": 1, "y": "a"}, Raw('{"x": 1,}')]),
    _schema("additionalProperties beside properties", _object({"a": STRING}, additionalProperties=INTEGER), [{"a": "x"}], [{"a": "x", "b": "y"}, {"a": 1}, Raw('{"a": "x",}'), Raw('{"a": "x", "b": 1,}')]),
    _schema("patternProperties", _typed("object", patternProperties={"^n_": INTEGER}, additionalProperties=False), [{"n_a": 1}, {}], [{"n_a": "x"}, {"m": 1}]),
    _schema("propertyNames", _typed("object", propertyNames={"pattern": "^[a-z]+$"}), [{"ab": 1}], [{"A1": 1}]),
    _schema("minProperties", _typed("object", minProperties=1), [{"a": 1}], [{}]),
    _schema("maxProperties", _typed("object", maxProperties=1), [{"a": 1}], [{"a": 1, "b": 2}]),
    _schema("dependentRequired", _object({"a": INTEGER, "b": INTEGER}, [], dependentRequired={"a": ["b"]}), [{"a": 1, "b": 1}, {}], [{"a": 1}]),
    _schema("required without its schema", _typed("object", required=["a"]), [{"a": 1}], [{}, {"b": 1}]),
    _schema("unevaluatedProperties false", _object({"a": INTEGER}, unevaluatedProperties=False), [{"a": 1}], [{"a": 1, "b": 2}]),
    _schema("names with quotes and spaces", _object({'a "b"': INTEGER, "c d": INTEGER, "é": INTEGER}), [{'a "b"': 1, "c d": 2, "é": 3}], [{"c d": 2}]),
    _schema("names with backslashes", _object({"a\\b": INTEGER}), [{"a\\b": 1}], [{"ab": 1}, Raw('{"a\\b": 1}')]),
    _schema("minLength", _typed("string", minLength=2), ["ab", "abc", "üü"], ["", "a", Raw('"a\x01"'), Raw('"\t\t"')]),
    _schema("maxLength", _typed("string", maxLength=2), ["", "ab"], ["abc", Raw('"\x01"'), Raw('"\t"')]),
    _schema("minLength and maxLength", _typed("string", minLength=2, maxLength=3), ["ab", "abc"], ["a", "abcd"]),
    _schema("pattern", _typed("string", pattern="^[a-c]{2}\\d$"), ["ab1", "cc0"], ["ab", "abc1", "1ab", "ab1x"]),
    _schema("pattern, not anchored", _typed("string", pattern="b"), ["b"], ["a", ""]),
    _schema("pattern with a negated class", _typed("string", pattern="^[^a-c]+$"), ["xyz"], ["a", "xa", "", Raw('"x\x01"')]),
    _schema("pattern with a dot", _typed("string", pattern="^a.c$"), ["abc"], ["ac", "abbc", Raw('"a"c"')]),
    _schema("pattern with escaped characters", _typed("string", pattern='^"\\\\n$'), ['"\\n'], ["n", Raw('""\\n"')]),
    _schema("pattern with look-ahead", _typed("string", pattern="^(?=ab)[a-c]+$"), ["abc"], ["bc", "a"]),
    _schema("pattern with word boundary", _typed("string", pattern="^\\bab\\b$"), ["ab"], ["abc"]),
    _schema("pattern beside lengths", _typed("string", pattern="^[a-c]+$", maxLength=2), ["ab"], ["abc", "x"]),
    _schema("format date", _typed("string", format="date"), ["2024-02-29", "1999-12-31"], ["2024", "x", "2024-13-01", "2023-02-29", "1900-02-29", "2024-04-31", "0000-01-01", ""]),
    _schema("format time", _typed("string", format="time"), ["12:30:00Z"], ["12", "x", "25:00:00Z", Raw('"12:30:00\\b15Z"'), Raw('"12:30:00\\x15Z"')]),
    _schema("format date-time", _typed("string", format="date-time"), ["2024-02-29T12:30:00Z", "2023-06-30T23:59:59.25+02:00"], ["2024-02-29", "2023-02-30T12:30:00Z", "x"]),
    _schema("format duration", _typed("string", format="duration"), ["P1D", "PT5M"], ["1 day", "P"]),
    _schema("format email", _typed("string", format="email"), ["a@b.com"], ["a", "@", "a@"]),
    _schema("format hostname", _typed("string", format="hostname"), ["a.example"], ["a b", "-"]),
    _schema("format ipv4", _typed("string", format="ipv4"), ["127.0.0.1", "255.249.199.0"], ["1.2.3", "300.1.1.1", "01.2.3.4", "1.2.3.00", "x"]),
    _schema("format ipv6", _typed("string", format="ipv6"), ["::1"], ["x", "1.2.3.4"]),
    _schema("format uuid", _typed("string", format="uuid"), ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8", "x"]),
    _schema("format uri", _typed("string", format="uri"), ["http://a.b/c"], ["a b", "%%"]),
    _schema("format json-pointer", _typed("string", format="json-pointer"), ["/a/0"], ["a", "/~"]),
    _schema("format regex", _typed("string", format="regex"), ["a+"], ["("]),
    _schema("unknown format", _typed("string", format="colour"), ["red"], []),
    _schema("minimum", _typed("integer", minimum=3), [3, 4, 100], [2, -5, 0]),
    _schema("maximum", _typed("integer", maximum=30), [30, -7, 0], [31, 300]),
    _schema("exclusiveMinimum", _typed("integer", exclusiveMinimum=3), [4, 50], [3, 0]),
    _schema("exclusiveMaximum", _typed("integer", exclusiveMaximum=30), [29, 1], [30, 31]),
    _schema("range of integers", _typed("integer", minimum=-5, maximum=117), [-5, 0, 117], [-6, 118, 1000]),
    _schema("range of numbers", _typed("number", minimum=0, maximum=1), [0, 0.5, 1], [-0.1, 1.5, 2]),
    _schema("open range of numbers", _typed("number", exclusiveMinimum=0, maximum=10), [0.5, 10], [0, -1, 10.5, 11]),
    _schema("multipleOf, integer", _typed("integer", multipleOf=3), [0, 3, 9], [1, 4, 10]),
    _schema("multipleOf, number", _typed("number", multipleOf=0.5), [0.5, 2], [0.3]),
    _schema("enum of strings", {"enum": ["red", "green", 'q"q']}, ["red", 'q"q'], ["blue", "re", 1]),
    _schema("enum with type", _typed("string", enum=["red", "green"]), ["red"], ["blue", ""]),
    _schema("enum of mixed values", {"enum": ["a", 1, None, True, 2.5]}, ["a", 1, None, True], ["b", 2, False]),
    _schema("enum of objects", {"enum": [{"a": 1}, [1, 2]]}, [], [{"a": 2}, [1], {}]),
    _schema("enum beside minLength", _typed("string", enum=["a", "abc"], minLength=2), ["abc"], ["a"]),
    _schema("const string", {"const": "on"}, ["on"], ["off", 1]),
    _schema("const number", {"const": 5}, [5], [6, "5"]),
    _schema("const null", {"const": None}, [None], [0, "null"]),
    _schema("items", _typed("array", items=STRING), [[], ["a", "b"]], [[1], ["a", 1]]),
    _schema("minItems", _typed("array", items=INTEGER, minItems=2), [[1, 2], [1, 2, 3]], [[], [1]]),
    _schema("maxItems", _typed("array", items=INTEGER, maxItems=2), [[], [1, 2]], [[1, 2, 3]]),
    _schema("minItems and maxItems", _typed("array", items=INTEGER, minItems=1, maxItems=2), [[1], [1, 2]], [[], [1, 2, 3]]),
    _schema("maxItems 0", _typed("array", items=INTEGER, maxItems=0), [[]], [[1]]),
    _schema("prefixItems", _typed("array", prefixItems=[STRING, INTEGER], items=False, minItems=2), [["a", 1]], [["a"], [1, "a"], ["a", 1, 2]]),
    _schema("prefixItems with further items", _typed("array", prefixItems=[STRING], items=INTEGER, minItems=1), [["a"], ["a", 1]], [[1], ["a", "b"]]),
    _schema("uniqueItems", _typed("array", items={"enum": [1, 2]}, uniqueItems=True), [[1, 2]], [[1, 1]]),
    _schema("contains", _typed("array", contains={"const": 1}), [[1]], [[2], []]),
    _schema("array of objects", _typed("array", items=_AB), [[{"a": "x", "b": 1}]], [[{"a": "x"}], [1]]),
    _schema("anyOf", {"anyOf": [STRING, INTEGER]}, ["a", 1], [None, [], 1.5]),
    _schema("anyOf beside properties", _object({"a": INTEGER}, [], anyOf=[{"required": ["a"]}, {"maxProperties": 0}]), [{"a": 1}], [{"a": "x"}]),
    _schema("oneOf of separate types", {"oneOf": [STRING, _typed("null")]}, ["a", None], [1, True]),
    _schema("oneOf by a constant property", {"oneOf": [
        _object({"k": {"const": "a"}, "x": INTEGER}), _object({"k": {"const": "b"}, "y": STRING})
    ]}, [{"k": "a", "x": 1}, {"k": "b", "y": "s"}], [{"k": "a", "y": "s"}, {"k": "c"}]),
    _schema("oneOf with overlap", {"oneOf": [_typed("integer", minimum=0), _typed("integer", maximum=10)]}, [20, -5], [5]),
    _schema("allOf with one branch", {"allOf": [_typed("integer", minimum=3)]}, [3], [1, "a"]),
    _schema("allOf with several branches", {"allOf": [_typed("integer", minimum=3), _typed("integer", maximum=9)]}, [3, 9], [1, 10]),
    _schema("allOf of objects", {"allOf": [_object({"a": INTEGER}), _object({"b": INTEGER})]}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}]),
    _schema("not", {"type": "string", "not": {"const": "a"}}, ["b"], ["a"]),
    _schema("if, then, else", {"type": "integer", "if": {"minimum": 5}, "then": {"maximum": 9}}, [1, 7], [10]),
    _schema("$ref to $defs", {"$ref": "#/$defs/ab", "$defs": {"ab": _AB}}, [{"a": "x", "b": 1}], [{"a": "x"}, 1]),
    _schema("$ref to definitions", _object({"p": {"$ref": "#/definitions/i"}}, definitions={"i": INTEGER}), [{"p": 1}], [{"p": "x"}, {}]),
    _schema("$ref beside keywords", {"$ref": "#/$defs/s", "maxLength": 2, "$defs": {"s": STRING}}, ["ab"], ["abc", 1]),
    _schema("recursive $ref", {"$ref": "#/$defs/node", "$defs": {"node": _NODE}}, [{"v": 1, "next": None}, {"v": 1, "next": {"v": 2, "next": None}}], [{"v": 1}, {"v": 1, "next": {"v": "x", "next": None}}]),
    _schema("recursive $ref to the root", _object({"c": _typed("array", items={"$ref": "#"})}), [{"c": []}, {"c": [{"c": []}]}], [{"c": [1]}, {}]),
    _schema("additionalItems", _typed("array", items=[STRING], additionalItems=False), [["a"]], [["a", 1], [1]]),
    _schema("annotations", _typed("integer", title="t", description="d", default=1, examples=[2], deprecated=True), [1], ["a"]),
)  # fmt: skip

_GBNF = 'root ::= "a" num ("," num)*\nnum ::= [0-9]+'
_LARK = 'start: "a" NUM ("," NUM)*\nNUM: /[0-9]+/'
_TAGS = {"structures": [{"begin": "<f>", "schema": _object({"a": INTEGER}), "end": "</f>"}], "triggers": ["<f"]}

OTHERS = (
    Case("json_object", "json_object", None, ("{}", '{"a": [1, "x"]}'), ("[]", "1", '{"a"}', '"a"', '{"a": 1,}'), "Constraints"),
    Case("regex", "regex", "(a|b)+c{2}", ("abcc",), ("abc", "cc", "abccc"), "Constraints"),
    Case("regex with look-ahead", "regex", "(?=ab)[a-c]+", ("abc",), ("bc",), "Constraints"),
    Case("choice", "choice", ["yes", "no", 'a "b".*', "ü"], ("yes", 'a "b".*', "ü"), ("maybe", "ye", "a b"), "Constraints"),
    Case("grammar (GBNF)", "grammar", _GBNF, ("a1", "a1,22"), ("a", "1", "a1,"), "Constraints"),
    Case("grammar (Lark)", "grammar", _LARK, ("a1", "a1,22"), ("a", "1", "a1,"), "Constraints"),
    Case("structural tags", "structural_tag", _TAGS, ("hello", 'x <f>{"a": 1}</f>'), ('<f>{"a": "x"}</f>', "<f>{}</f>"), "Constraints"),
)  # fmt: skip

CASES = (*OTHERS, *SCHEMAS)
