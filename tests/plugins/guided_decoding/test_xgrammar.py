"""xgrammar's matchers stepped together, where tokens are kept out of free text."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.guided.trial import allowed_tokens
from engine.plugin import GrammarSteps, GuideSpec, Vocabulary
from engine.plugin.testing.text import demo_tokenizer

pytest.importorskip("xgrammar")
TAGS = {
    "structures": [{"begin": "<call>", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}, "end": "</call>"}],
    "triggers": ["<call>"],
}


@pytest.fixture(scope="module")
def compiler():
    from engine_plugins.guided_decoding.xgrammar import XGrammarCompiler

    tokenizer = demo_tokenizer()
    special = {tokenizer.token_text(i): i for i in tokenizer.special_ids()}
    vocabulary = Vocabulary.of(tokenizer, tokenizer.size())
    return XGrammarCompiler(vocabulary, lambda text: tokenizer.encode(text, add_special_tokens=False), special)


def mask_of(matcher, width):
    mask = np.zeros(-(-width // 32), np.int32)
    matcher.fill(mask)
    return mask


def test_special_tokens_stay_out_of_free_text_for_many_as_for_one(compiler):
    tokenizer, chance = demo_tokenizer(), random.Random(2)
    width = tokenizer.size()
    guide = compiler.compile(GuideSpec("structural_tag", TAGS))
    together, single = [guide.start() for _ in range(4)], [guide.start() for _ in range(4)]
    masks = np.zeros((4, -(-width // 32)), np.int32)
    for _ in range(20):
        tokens = [int(chance.choice(allowed_tokens(mask_of(matcher, width), width))) for matcher in single]
        tokens = [token if token != tokenizer.eos_token_id else tokenizer.encode("a", add_special_tokens=False)[0] for token in tokens]
        refused = type(together[0]).step(together, tokens, masks, [3, 2, 1, 0])
        assert list(refused) == [i for i, matcher in enumerate(single) if not matcher.advance([tokens[i]])]
        for place, matcher in enumerate(single):
            assert (masks[3 - place] == mask_of(matcher, width)).all()
        assert not set(allowed_tokens(masks[0], width).tolist()) & set(tokenizer.special_ids()) - {tokenizer.eos_token_id}


def test_a_token_that_never_comes_is_left_to_one_by_one(compiler):
    tokenizer = demo_tokenizer()
    never = next(i for i in tokenizer.special_ids() if i != tokenizer.eos_token_id)
    matchers = [compiler.compile(GuideSpec("structural_tag", TAGS)).start() for _ in range(2)]
    masks = np.zeros((2, -(-tokenizer.size() // 32)), np.int32)
    assert type(matchers[0]).step(matchers, [5, never], masks, [0, 1]) is None


def test_a_text_that_may_be_anything_has_a_whole_mask(compiler):
    tokenizer = demo_tokenizer()
    guide = compiler.compile(GuideSpec("regex", r"(.|\n)*"))
    matchers = [guide.start() for _ in range(2)]
    token = tokenizer.encode("a", add_special_tokens=False)[0]
    masks = np.zeros((2, -(-tokenizer.size() // 32)), np.int32)
    assert list(type(matchers[0]).step(matchers, [token, token], masks, [0, 1])) == []
    one = guide.start()
    assert one.advance([token])
    assert (masks == mask_of(one, tokenizer.size())).all() and len(allowed_tokens(masks[0], tokenizer.size())) > 1000


SHORT = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 6}}, "required": ["a"]}
DAY = {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}, "required": ["a"]}


def tagged(schema):
    """A schema within tags, in every place that a request can put it."""
    inner = {"type": "json_schema", "json_schema": schema}
    tag = {"type": "tag", "begin": "<c>", "content": inner, "end": "</c>"}
    several = {"type": "tags_with_separator", "tags": [tag], "separator": "\n", "at_least_one": True, "stop_after_first": False}
    triggered = {"type": "triggered_tags", "triggers": ["<c>"], "tags": [tag]}
    formats = (tag, several, triggered, {"type": "sequence", "elements": [tag]}, {"type": "or", "elements": [tag, tag]})
    yield from ({"type": "structural_tag", "format": format} for format in formats)
    yield {"structures": [{"begin": "<c>", "schema": schema, "end": "</c>"}], "triggers": ["<c>"]}


@pytest.mark.parametrize(
    ("schema", "text", "taken"),
    [
        (SHORT, '{"a": "x y"}', True), (SHORT, '{"a": "x\ty"}', False), (SHORT, '{"a": "\x01"}', False), (SHORT, '{"a": "1234567"}', False),
        (DAY, '{"a": "2024-02-29"}', True), (DAY, '{"a": "2024-02-30"}', False),
    ],
)  # fmt: skip
def test_schemas_within_tags_are_kept_as_those_of_answers(compiler, schema, text, taken):
    tokenizer = demo_tokenizer()
    for value in tagged(schema):
        matcher = compiler.compile(GuideSpec("structural_tag", value)).start()
        ids = tokenizer.encode(f"<c>{text}</c>", add_special_tokens=False)
        assert all(matcher.advance([token]) for token in ids) is taken, value


SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "n": {"type": "integer"}}}


def test_calls_without_python_step_as_the_matchers_do(compiler):
    """Text, JSON and tags at once, on the pool's threads: masks, refusals, and states that go on from there."""
    from engine_devices._native import Absent, load
    from engine_devices._operations import NativeOperations

    native = load()
    if isinstance(native, Absent):
        pytest.skip(native.reason)
    tokenizer, chance = demo_tokenizer(), random.Random(3)
    width, end = tokenizer.size(), tokenizer.eos_token_id
    specs = [GuideSpec("json", SCHEMA), GuideSpec("structural_tag", TAGS), GuideSpec("regex", "[a-z]{40,}")]
    guides = [compiler.compile(spec) for spec in specs] * 3
    together, single = [guide.start() for guide in guides], [guide.start() for guide in guides]
    count = len(guides)
    bits = np.zeros((count, -(-width // 32)), np.int32)
    stepper = type(together[0]).stepper(together, bits)
    steps = GrammarSteps(
        stepper.calls, bits, stepper.kept, end, np.zeros((count, 0), np.int64), np.full(count, -1, np.int32), np.zeros(1, np.int32), 9.0
    )
    assert stepper.apart == set(tokenizer.special_ids()) - {end}
    taken = [0] * count
    wrong = tokenizer.encode("\n", add_special_tokens=False)[0]
    for turn in range(24):
        tokens = []
        for matcher in single:
            ways = [t for t in allowed_tokens(mask_of(matcher, width), width).tolist() if t != end]
            tokens.append(chance.choice(ways) if ways and turn % 8 != 7 else wrong)
        stepper.stage(np.array(tokens, np.int64))
        NativeOperations(native).step_grammars(steps)
        assert not steps.status.any()
        refused = [i for i, matcher in enumerate(single) if not matcher.advance([tokens[i]])]
        assert list(stepper.refused()) == refused and (turn % 8 != 7 or refused)
        for place in set(range(count)) - set(refused):
            taken[place] += 1
            assert (bits[place] == mask_of(single[place], width)).all()
    for one, many, most in zip(single, together, taken, strict=True):
        one.rollback(min(3, most))
        many.rollback(min(3, most))
        assert (mask_of(one, width) == mask_of(many, width)).all()


def test_a_failure_of_the_library_is_a_status(compiler):
    from engine_devices._native import Absent, load
    from engine_devices._operations import NativeOperations

    native = load()
    if isinstance(native, Absent):
        pytest.skip(native.reason)
    bits = np.zeros((1, 2), np.int32)  # too narrow for the vocabulary: the library refuses to write
    matcher = compiler.compile(GuideSpec("json", SCHEMA)).start()
    stepper = type(matcher).stepper([matcher], bits)
    steps = GrammarSteps(
        stepper.calls, bits, stepper.kept, 0, np.zeros((1, 0), np.int64), np.zeros(1, np.int32), np.zeros(1, np.int32), 9.0
    )
    stepper.stage(np.array([demo_tokenizer().encode("{", add_special_tokens=False)[0]]))
    NativeOperations(native).step_grammars(steps)
    assert steps.status[0] != 0


def test_kept_rules_allow_what_those_compiled_anew_allow(compiler):
    import xgrammar

    from engine_plugins.guided_decoding.xgrammar import XGrammarCompiler

    tokenizer, chance = demo_tokenizer(), random.Random(3)
    width = tokenizer.size()
    vocabulary = Vocabulary.of(tokenizer, width)
    anew = XGrammarCompiler(vocabulary, lambda text: tokenizer.encode(text, add_special_tokens=False))
    info = xgrammar.TokenizerInfo(
        list(vocabulary.tokens), xgrammar.VocabType.RAW, vocab_size=width, stop_token_ids=[vocabulary.end]
    )
    anew._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    for number in range(12):
        kinds = chance.sample(["string", "integer", "number", "boolean", "null"], 3)
        properties = {f"name_{number}_{i}": {"type": kind} for i, kind in enumerate(kinds)}
        schema = {"type": "object", "properties": properties, "required": list(properties)[: number % 4]}
        spec = GuideSpec("json", schema, options={"any_whitespace": number % 2 == 0})
        kept, fresh = compiler.compile(spec).start(), anew.compile(spec).start()
        for _ in range(60):
            mask = mask_of(fresh, width)
            assert set(allowed_tokens(mask_of(kept, width), width)) == set(allowed_tokens(mask, width))
            token = int(chance.choice(allowed_tokens(mask, width)))
            if token == vocabulary.end:
                break
            assert kept.advance([token]) and fresh.advance([token])
