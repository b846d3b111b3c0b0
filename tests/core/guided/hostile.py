"""Constraints that must be refused in time: name → kind, value, and what the refusal says."""

from __future__ import annotations


def _deep(levels):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def _branching(names, levels):
    defs = {
        f"d{i}": {"type": "object", "properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in names}} for i in range(levels)
    }
    return {"$defs": defs | {f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


LONG = {f"p{i}": {"type": "string", "maxLength": 1000} for i in range(1000)}
HOSTILE = {
    "repeats too often": ("regex", ".{1,100000}", "repeats"),
    "repeats of repeats": ("regex", "(.{1,9999}){1,9999}", "cannot be used"),
    "look-behind": ("regex", "(?<=a)b", "cannot be used"),
    "not a regex": ("regex", "(", "not valid"),
    "100 000 values": ("json", {"enum": [f"v{i}" for i in range(100_000)]}, "bytes"),
    "500 levels": ("json", _deep(500), "64 levels"),
    "a reference elsewhere": ("json", {"$ref": "http://127.0.0.1:1/z"}, "outside the schema"),
    "a reference to a file": ("json", {"$ref": "file:///etc/passwd"}, "outside the schema"),
    "unsatisfiable": ("json", {"allOf": [{"type": "integer"}, {"type": "string"}]}, "nsatisfiable"),
    "empty range": ("json", {"type": "integer", "minimum": 5, "maximum": 3}, "cannot be used"),
    "unknown type": ("json", {"type": "foo"}, "type 'foo' is unknown"),
    "pattern": ("json", {"type": "string", "pattern": "("}, "not valid"),
    "refers to itself": ("json", {"$ref": "#"}, "cannot be used"),
    "a circle of references": ("json", {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "cannot"),
    "takes long": ("json", {"type": "object", "properties": LONG}, "longer than"),
    "never ends": ("grammar", "root ::= root", "no text satisfies it"),
    "empty grammar": ("grammar", " ", "empty"),
    "rule missing": ("grammar", "root ::= x", "not defined"),
    "parentheses": ("grammar", "root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "nested"),
    "no choices": ("choice", [], "1 to 5000"),
    "no schema": ("json", 5, "object or a boolean"),
}
