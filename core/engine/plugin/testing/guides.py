"""Suite of guided-decoding backends."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

from engine.plugin.contracts.generation import GuideCompiler, Matcher, UnsupportedConstraint
from engine.plugin.contracts.text import Tokenizer
from engine.plugin.request import GuideSpec
from engine.plugin.testing.base import PluginContract
from engine.plugin.testing.text import demo_tokenizer

_SCHEMA = {
    "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"],
    "additionalProperties": False,
}  # fmt: skip

#: Constraint → (sentences of its language, texts that are not).
LANGUAGES: dict[str, tuple[GuideSpec, tuple[str, ...], tuple[str, ...]]] = {
    "choice": (GuideSpec("choice", ["yes", "no", "maybe so"]), ("yes", "no", "maybe so"), ("yep", "ye", "nope")),
    "regex": (GuideSpec("regex", r"[a-c]{2,4}-\d+"), ("ab-1", "abca-007"), ("a-1", "abcd-1", "ab-")),
    "json": (GuideSpec("json", _SCHEMA), ('{"name": "Ada", "age": 36}',), ('{"name": 3', '{"age": "x"', "[1]")),
    "json_object": (GuideSpec("json_object"), ('{"a": [1, null, "x"]}',), ("[1]", "nothing")),
}


class GuideContract(PluginContract):
    """``languages``: which of the kit's constraints the backend is held to (by default those it does not call unsupported)."""

    kind_name = "guided_decoding"
    languages: ClassVar[tuple[str, ...]] = tuple(LANGUAGES)

    @pytest.fixture
    def tokenizer(self) -> Tokenizer:
        """The vocabulary that outputs are written in."""
        return demo_tokenizer()

    @pytest.fixture
    def hook_args(self, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"tokenizer": tokenizer, "vocab_size": tokenizer.size() + 37, "options": dict(self.options)}

    @pytest.fixture(params=list(LANGUAGES))
    def language(self, request: pytest.FixtureRequest, plugin: GuideCompiler) -> tuple[GuideSpec, tuple[str, ...], tuple[str, ...]]:
        """One constraint with its examples."""
        if request.param not in self.languages:
            pytest.skip(f"{self.name} is not held to {request.param}")
        lacking = plugin.unsupported(LANGUAGES[request.param][0])
        if lacking is not None:
            pytest.skip(f"{self.name} says it lacks {lacking}")
        return LANGUAGES[request.param]

    def test_sentences_are_accepted_and_may_end(self, plugin: GuideCompiler, tokenizer: Tokenizer, language: Any) -> None:
        spec, sentences, _ = language
        guide = plugin.compile(spec)
        for sentence in sentences:
            matcher = guide.start()
            for token in tokenizer.encode(sentence, add_special_tokens=False):
                assert token in _allowed(matcher, tokenizer), f"{tokenizer.token_text(token)!r} of {sentence!r} is not allowed"
                assert matcher.advance([token])
            assert tokenizer.eos_token_id in _allowed(matcher, tokenizer), f"{sentence!r} may not end"

    def test_other_texts_are_refused(self, plugin: GuideCompiler, tokenizer: Tokenizer, language: Any) -> None:
        spec, _, others = language
        guide = plugin.compile(spec)
        for text in others:
            matcher = guide.start()
            taken = matcher.advance(tokenizer.encode(text, add_special_tokens=False))
            assert not taken or tokenizer.eos_token_id not in _allowed(matcher, tokenizer), f"{text!r} is accepted whole"

    def test_masks_agree_with_advancing(self, plugin: GuideCompiler, tokenizer: Tokenizer, language: Any) -> None:
        """A seeded walk: what the mask allows is taken, what it does not is refused and leaves the state as it was."""
        matcher, chance = plugin.compile(language[0]).start(), random.Random(3)
        for _ in range(12):
            allowed = _allowed(matcher, tokenizer)
            assert allowed, "the mask allows nothing"
            refused = next(token for token in iter(lambda: chance.randrange(tokenizer.size()), None) if token not in allowed)
            assert not matcher.advance([refused])
            assert _allowed(matcher, tokenizer) == allowed, "a refused token changed the state"
            token = chance.choice(sorted(allowed))
            if token == tokenizer.eos_token_id:
                break
            assert matcher.advance([token])

    def test_no_column_without_a_token_is_allowed(self, plugin: GuideCompiler, tokenizer: Tokenizer, language: Any) -> None:
        allowed = _allowed(plugin.compile(language[0]).start(), tokenizer)
        assert max(allowed) < tokenizer.size()
        assert not (allowed & tokenizer.special_ids()) - {tokenizer.eos_token_id}

    def test_rolling_back_restores_the_state(self, plugin: GuideCompiler, tokenizer: Tokenizer, language: Any) -> None:
        spec, sentences, _ = language
        matcher = plugin.compile(spec).start()
        ids = tokenizer.encode(sentences[0], add_special_tokens=False)
        masks = []
        for token in ids:
            masks.append(_allowed(matcher, tokenizer))
            assert matcher.advance([token])
        for count in range(1, len(ids) + 1):
            matcher.rollback(1)
            assert _allowed(matcher, tokenizer) == masks[-count]

    def test_stepping_together_is_stepping_one_by_one(self, plugin: GuideCompiler, tokenizer: Tokenizer, language: Any) -> None:
        """Three sentences at different places; rows of masks in another order; one whose token is not allowed stays where it is."""
        import numpy

        guide, chance = plugin.compile(language[0]), random.Random(5)
        together, single = [guide.start() for _ in range(3)], [guide.start() for _ in range(3)]
        masks, rows = numpy.zeros((4, -(-(tokenizer.size() + 37) // 32)), dtype=numpy.int32), [2, 0, 3]
        for turn in range(8):
            ways = [sorted(_allowed(matcher, tokenizer) - {tokenizer.eos_token_id}) for matcher in single]
            if not all(ways):
                return
            tokens = [chance.choice(way) for way in ways]
            if turn == 3:
                tokens[1] = next(token for token in range(tokenizer.size()) if token not in ways[1])
            masks.fill(0)
            refused = type(together[0]).step(together, tokens, masks, rows)
            if refused is None:
                pytest.skip(f"{self.name} steps matchers one by one")
            assert list(refused) == [i for i, matcher in enumerate(single) if not matcher.advance([tokens[i]])]
            for i, row in enumerate(rows):
                if i not in refused:
                    assert _set(masks[row]) == _allowed(single[i], tokenizer)
            assert not masks[1].any(), "a row that was not named is written"

    def test_requests_do_not_share_state(self, plugin: GuideCompiler, tokenizer: Tokenizer, language: Any) -> None:
        spec, sentences, _ = language
        guide = plugin.compile(spec)
        first, before = guide.start(), _allowed(guide.start(), tokenizer)
        assert first.advance(tokenizer.encode(sentences[0], add_special_tokens=False)[:1])
        assert _allowed(guide.start(), tokenizer) == before

    def test_sizes_are_told(self, plugin: GuideCompiler, language: Any) -> None:
        assert plugin.compile(language[0]).nbytes() > 0

    def test_a_wrong_constraint_is_a_value_error(self, plugin: GuideCompiler) -> None:
        for spec in (GuideSpec("regex", "(unclosed"), GuideSpec("json", {"type": "no such type"})):
            if plugin.unsupported(spec) is None:
                with pytest.raises((ValueError, UnsupportedConstraint)):
                    plugin.compile(spec)


def _allowed(matcher: Matcher, tokenizer: Tokenizer) -> set[int]:
    import numpy

    mask = numpy.zeros(-(-(tokenizer.size() + 37) // 32), dtype=numpy.int32)
    matcher.fill(mask)
    return _set(mask)


def _set(mask: Any) -> set[int]:
    import numpy

    return set(numpy.flatnonzero(numpy.unpackbits(mask.view(numpy.uint8), bitorder="little")).tolist())
