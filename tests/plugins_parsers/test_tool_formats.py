"""Every tool parser on the same calls in its own format: whole, split anywhere, cut off anywhere."""

from __future__ import annotations

import json

import pytest

from tests.plugins_parsers.kit import check_splits, run, tool, tool_maker
from tests.plugins_parsers.tool_formats import FORMATS

BOOLEAN = {"type": "boolean"}
ANY = {"type": ["object", "array", "number"]}
TOOLS = [
    tool("get_weather", city={"type": "string"}, unit={"type": "string"}),
    tool("f", a={"type": "string"}, b={"type": "integer"}, c=BOOLEAN, d=ANY, e={"type": "number"}, n={"type": ["null", "number"]}),
    tool("now"),
]
CALLS = {
    "one": [("get_weather", {"city": "Paris"})],
    "two": [("get_weather", {"city": "Paris", "unit": "celsius"}), ("get_weather", {"city": "New York"})],
    "no arguments": [("now", {})],
    "none then some": [("now", {}), ("f", {"b": 1}), ("now", {})],
    "numbers": [("f", {"b": -12, "e": 2.5})],
    "booleans and null": [("f", {"c": True, "n": None})],
    "nested": [("f", {"d": {"x": [1, {"y": [2, [3]]}], "z": {}}})],
    "list": [("f", {"d": [1, 2, 3]})],
    "unicode": [("get_weather", {"city": "Zürich 東京 🌦️"})],
    "quotes and backslashes": [("f", {"a": "say \"hi\" and 'bye' \\ done"})],
    "lines": [("f", {"a": "first line\nsecond\tline"})],
    "brackets in a text": [("f", {"a": "}{][)( , ; } ]"})],
    "json in a text": [("f", {"a": '{"name": "g", "arguments": {"x": 1}}'})],
    "empty text": [("f", {"a": ""})],
    "spaces in a text": [("f", {"a": "  spaced out  "})],
    "numeral in a text": [("f", {"a": "42"})],
    "word in a text": [("f", {"a": "true"})],
    "other format's markers": [("f", {"a": "<other_call>x</other_call> [DONE] <|im_end|>"})],
    "python in a text": [("f", {"a": "print(f'{x}') # comment, with [brackets]"})],
    "long": [("f", {"a": "lorem ipsum " * 20, "b": 7})],
}  # fmt: skip
PLAIN = ("", " ", "\n\n", "Plain answer.", "a < b, {x: 1} and [y] for f(z)", "  indented\n", "1", "[", "{", "<", "[1, 2]")
CASES = [pytest.param(*row, id=row[1].__name__) for row in FORMATS]


@pytest.mark.parametrize(("module", "write", "spoken", "is_json"), CASES)
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_calls_in_any_split(module, write, spoken, is_json, calls):
    make = tool_maker(module, TOOLS)
    found = check_splits(make, write(calls), randoms=4, singles=120)
    assert found.content == "" and [name for name, _ in found.calls] == [name for name, _ in calls]
    for (_, text), (_, arguments) in zip(found.calls, calls, strict=True):
        assert json.loads(text) == arguments
        assert text == json.dumps(arguments, ensure_ascii=False)


@pytest.mark.parametrize(("module", "write", "spoken", "is_json"), CASES)
def test_content_before_calls(module, write, spoken, is_json):
    make = tool_maker(module, TOOLS)
    found = check_splits(make, "Let me look.\n\n" + write(CALLS["two"]) + "\n")
    if spoken:
        assert found.content == "Let me look." and len(found.calls) == 2
    else:
        assert found.content.startswith("Let me look.\n\n[") and not found.calls


@pytest.mark.parametrize(("module", "write", "spoken", "is_json"), CASES)
@pytest.mark.parametrize("text", PLAIN)
def test_text_without_calls_is_content(module, write, spoken, is_json, text):
    found = check_splits(tool_maker(module, TOOLS), text)
    assert found.content == text and not found.calls


@pytest.mark.parametrize(("module", "write", "spoken", "is_json"), CASES)
def test_output_cut_off_anywhere(module, write, spoken, is_json):
    """A call that has begun stays one; its arguments are a beginning of the whole ones, but where only the end tells what they are."""
    make = tool_maker(module, TOOLS)
    text = write([*CALLS["two"], *CALLS["quotes and backslashes"], *CALLS["nested"]])
    whole = run(make, [text])
    for end in range(len(text)):
        cut = run(make, [text[:end]])
        assert cut == run(make, text[:end]), end
        assert len(cut.calls) <= len(whole.calls)
        for (name, arguments), (full_name, full) in zip(cut.calls, whole.calls, strict=False):
            assert name == full_name
            if is_json:
                assert full.startswith(arguments) or cut.content
