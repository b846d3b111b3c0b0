"""No backend may take what violates a constraint; the table in the docs says what each of them enforces."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from engine.plugin import GuideSpec
from engine.plugin.kinds import GUIDED_DECODING
from tools.guided.cases import CASES
from tools.guided.probe import ByteTokenizer, Outcome, accepts, probe
from tools.guided.table import FINISH, PAGE, insert, table

MODULES = {"xgrammar": "xgrammar", "guidance": "llguidance", "outlines": "outlines_core", "lm-format-enforcer": "lmformatenforcer"}

ONE = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture(scope="module", params=list(MODULES))
def compiler(request):
    from engine.plugin.host import PluginHost

    pytest.importorskip(MODULES[request.param])
    tokenizer = ByteTokenizer()
    return PluginHost().create(GUIDED_DECODING, request.param, tokenizer=tokenizer, vocab_size=tokenizer.size(), options={}).plugin


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_accepted_that_violates_the_constraint(compiler, case):
    outcome, why = probe(compiler, case)
    assert outcome is not Outcome.VIOLATED, why


def test_the_docs_say_what_the_backends_do():
    for module in MODULES.values():
        pytest.importorskip(module)
    page = PAGE.read_text(encoding="utf-8")
    assert FINISH in page
    assert insert(page, table()) == page, "run python -m tools.guided.table"


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("not", {"type": "string", "not": {"const": "a"}}),
        ("uniqueItems", {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        ("format 'colour'", {"type": "string", "format": "colour"}),
        ("allOf with several branches", {"allOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "maximum": 3}]}),
    ],
)
def test_xgrammar_refuses_what_the_library_ignores(name, schema):
    compiler = _xgrammar()
    assert name.split()[0] in compiler.unsupported(GuideSpec("json", {"type": "object", "properties": {"a": schema}}))


def test_rolling_back_is_exact(compiler):
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}, "required": ["name", "n"]}
    matcher = compiler.compile(GuideSpec("json", schema)).start()
    masks = []
    text = b'{"name": "ab", "n": 12}'
    for byte in text:
        masks.append(_mask(matcher))
        assert matcher.advance([byte])
    for count in (1, 2, 5):
        matcher.rollback(count)
        assert (_mask(matcher) == masks[len(text) - count]).all()
        assert matcher.advance(list(text[len(text) - count :]))
    assert not matcher.advance([ord("x")])
    assert not matcher.advance(list(b" x"))
    matcher.rollback(1)
    assert (_mask(matcher) == masks[-1]).all()


def test_compact_json_holds_no_white_space(compiler):
    guide = compiler.compile(GuideSpec("json", ONE, options={"any_whitespace": False}))
    assert accepts(guide, '{"a":1}')
    assert not accepts(guide, '{"a": 1}') and not accepts(guide, '{ "a":1}') and not accepts(guide, '{"a":1 }')


def test_white_space_is_bounded(compiler):
    guide = compiler.compile(GuideSpec("json", ONE))
    assert accepts(guide, '{"a": 1}')
    assert not accepts(guide, '{"a":' + 100 * " " + "1}")


def _mask(matcher):
    mask = np.zeros(9, np.int32)
    matcher.fill(mask)
    return mask


def _xgrammar():
    module = importlib.import_module("engine_plugins.guided_decoding.xgrammar")
    tokenizer = ByteTokenizer()
    return module.engine_create_guide(tokenizer=tokenizer, vocab_size=tokenizer.size())
