"""Which request fields ask for which constraint, and which are refused."""

from __future__ import annotations

import pytest

from engine.errors import RequestError
from engine.guided.fields import read_guide
from engine.server.openai.protocol import ChatBody


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"guided_json": '{"type": "integer"}'}, "json"),
        ({"guided_regex": "a"}, "regex"),
        ({"guided_choice": ["a"]}, "choice"),
        ({"guided_grammar": "root ::= [a]"}, "grammar"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {}}}}, "json"),
        ({"structured_outputs": {"regex": "a", "disable_any_whitespace": True}}, "regex"),
        ({"structured_outputs": {"json_object": True}}, "json_object"),
        ({"response_format": {"type": "text"}}, None),
    ],
)
def test_fields(fields, kind):
    got = read_guide(ChatBody(messages=[], **fields))
    assert (got and got[1].kind) == kind


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"guided_json": {}, "guided_regex": "a"}, "guided_regex"),
        ({"guided_choice": ["a"], "response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"structured_outputs": {"foo": 1}}, "structured_outputs.foo"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs.regex"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_choice": [1]}, "guided_choice"),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern"),
        ({"guided_regex": "a", "guided_decoding_backend": "xgrammar:foo"}, "guided_decoding_backend"),
    ],
)
def test_refused_fields(fields, field):
    with pytest.raises(RequestError) as refused:
        read_guide(ChatBody(messages=[], **fields))
    assert refused.value.param == field
