"""A lean tokenizer answers as the whole one, and makes that again only for what it cannot answer."""

from __future__ import annotations

import gc
import random
import weakref
from pathlib import Path

import pytest

from engine.plugin.vocabulary import Vocabulary
from engine_plugins.tokenizers import _fast
from engine_plugins.tokenizers._lean import LeanTokenizer, Words
from tests.data import shared
from tests.plugins.tokenizers.places import fast
from tests.plugins.tokenizers.test_files import make
from tests.plugins.tokenizers.test_tokenizers import PLACES, TEXTS, place_of

FORCED = [
    '{"name": "', '", "arguments": {"city_name": ', "<tool_call>\n{", "\n</tool_call>",
    "ab" * 700, "日本" * 90, "\u0301e\u0301", "\\u00e9",
]  # fmt: skip


@pytest.fixture(scope="module", params=PLACES)
def both(request):
    """The whole tokenizer of a place, and a lean one that says when it makes the whole one."""
    whole = fast(place_of(request.param))
    made: list[int] = []

    def again():
        made.append(1)
        return fast(place_of(request.param))

    lean = LeanTokenizer.of(whole, whole._tokenizer, again)
    assert lean is not None
    return whole, lean, made


def random_texts():
    chance = random.Random(4)
    alphabet = 'abcdefgh XYZ  \n\t0123456789{}[]":,._-é日本ßЖ👩'
    return ["".join(chance.choice(alphabet) for _ in range(chance.randrange(1, 60))) for _ in range(300)]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("around", [True, False])
def test_it_encodes_as_the_whole_one(both, special, around):
    whole, lean, _ = both
    for text in [*TEXTS, *FORCED, *random_texts()]:
        expected = whole.encode(text, add_special_tokens=around, allow_special=special)
        assert lean.encode(text, add_special_tokens=around, allow_special=special) == expected, text


def test_it_decodes_as_the_whole_one(both):
    whole, lean, _ = both
    chance = random.Random(5)
    for _ in range(200):
        ids = [chance.randrange(-3, whole.size() + 3) for _ in range(chance.randrange(12))]
        ids += chance.sample(sorted(whole.special_ids()), 1)
        for skip in (True, False):
            assert lean.decode(ids, skip_special_tokens=skip) == whole.decode(ids, skip_special_tokens=skip), ids


def test_facts_are_the_same(both):
    whole, lean, _ = both
    assert lean.size() == whole.size()
    texts = [whole.token_text(token) for token in range(-1, whole.size() + 2)]
    assert [lean.token_text(token) for token in range(-1, whole.size() + 2)] == texts
    for text in [*texts[:: len(texts) // 500], "", "no such piece"]:
        assert lean.token_id(text) == whole.token_id(text)
    assert lean.special_ids() == whole.special_ids() and lean.special_tokens() == whole.special_tokens()
    assert (lean.bos_token_id, lean.eos_token_id) == (whole.bos_token_id, whole.eos_token_id)
    assert lean.chat_template() == whole.chat_template()
    assert Vocabulary.of(lean, whole.size() + 5).tokens == Vocabulary.of(whole, whole.size() + 5).tokens


def test_plain_text_needs_no_whole_one():
    whole = fast(shared("tokenizers/gpt2"))

    def never():
        raise AssertionError("made the whole tokenizer")

    lean = LeanTokenizer.of(whole, whole._tokenizer, never)
    assert lean is not None
    for text in FORCED:
        assert lean.encode(text, add_special_tokens=False, allow_special=False)
    assert lean.decode(whole.encode("as it was")) == "as it was"
    with pytest.raises(AssertionError):
        lean.encode("<|endoftext|>", add_special_tokens=False)


def test_text_of_ordinary_added_tokens_is_left_to_the_whole_one(tmp_path):
    place = make(tmp_path, tokenizer_config={"added_tokens_decoder": {"257": {"content": "<tool>", "special": False}}})
    whole = fast(place)
    made: list[str] = []

    def again():
        made.append("whole")
        return fast(place)

    lean = LeanTokenizer.of(whole, whole._tokenizer, again)
    assert lean is not None
    assert lean.encode("a <|end|>", add_special_tokens=False, allow_special=False) == whole.encode("a <|end|>", allow_special=False)
    assert not made
    text = "a <tool> b"
    assert 257 in whole.encode(text, allow_special=False)
    assert lean.encode(text, add_special_tokens=False, allow_special=False) == whole.encode(text, allow_special=False)
    assert made == ["whole"]


def test_small_tokenizers_stay_and_large_ones_are_let_go(monkeypatch):
    place = shared("tokenizers/gpt2")
    whole = fast(place)
    assert whole.lean() is whole
    monkeypatch.setattr(_fast, "_LARGE", 1000)
    lean = whole.lean()
    assert isinstance(lean, LeanTokenizer)
    gone = weakref.ref(whole)
    del whole
    gc.collect()
    assert gone() is None
    assert lean.encode("a <|endoftext|>", add_special_tokens=False) == fast(place).encode("a <|endoftext|>")


def test_other_kinds_of_models_stay(tmp_path: Path):
    from tokenizers import Tokenizer, models

    kinds = {
        "unigram": models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0, byte_fallback=False),
        "pieces": models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"),
        "chance": models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")], dropout=0.5),
        "ends": models.BPE(vocab={"a": 0, "a</w>": 1}, merges=[], end_of_word_suffix="</w>"),
    }
    for name, model in kinds.items():
        (tmp_path / name).mkdir()
        Tokenizer(model).save(str(tmp_path / name / "tokenizer.json"))
        whole = fast(tmp_path / name)
        assert LeanTokenizer.of(whole, whole._tokenizer, lambda: None) is None, name


def test_merges_are_taken_by_rank_and_from_the_left(tmp_path: Path):
    from tokenizers import Tokenizer, models

    texts = ["a", "b", "c", "bc", "ab", "aa", "abc", "aaa"]
    merges = [("b", "c"), ("a", "b"), ("a", "a"), ("a", "bc"), ("aa", "a")]
    for at_once in (False, True):
        place = tmp_path / str(at_once)
        place.mkdir()
        model = models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=merges, ignore_merges=at_once)
        Tokenizer(model).save(str(place / "tokenizer.json"))
        whole = fast(place)
        lean = LeanTokenizer.of(whole, whole._tokenizer, lambda whole=whole: whole)
        assert lean is not None
        chance = random.Random(6)
        for _ in range(400):
            text = "".join(chance.choice("abcx" if chance.random() < 0.1 else "abc") for _ in range(chance.randrange(1, 14)))
            assert lean.encode(text, add_special_tokens=False) == whole.encode(text, add_special_tokens=False), text


def test_words_find_texts_both_ways():
    texts = ["", "b", "a", "", "日", "ab", "\ud800"]
    words = Words(texts)
    assert [words.text(number) for number in range(-1, 8)] == ["", *texts, ""]
    for number, text in enumerate(texts):
        assert words.number(text) == (number if text else None)
    assert words.number("c") is None
