"""Pieces of text add up to the whole text, and none ends in half a character."""

from __future__ import annotations

import random

import pytest

from engine.assemble.detokenizer import BROKEN, Detokenizer
from engine.assemble.tokens import TokenTexts
from tests.core.server.real_tokenizer import FileTokenizer, byte_tokenizer
from tests.data import shared

TEXTS = (
    "Hello world, this is a test.", "  leading and trailing  ", "naïve café — “quotes” …", "日本語のテキスト、絵文字 👩‍👩‍👧‍👦🏳️‍🌈😀😀😀",
    "tabs\tand\nnewlines\n\n\n", "العربية עברית हिन्दी ไทย", "a" * 300, "🤖" * 50,
    "x 🤖 y 🤖 z", "\u200b\u200d\ufeff", "don't can't it's n't",
)  # fmt: skip


def load(name):
    if name == "byte":
        return byte_tokenizer()
    paths = {"gpt2": "tokenizers/gpt2/tokenizer.json", "stories": "stories260k/tokenizer.json"}
    return FileTokenizer(shared(paths[name]), bos="<s>" if name == "stories" else None, eos="</s>" if name == "stories" else None)


def pieces_of(tokenizer, ids, generator, **options):
    detokenizer = Detokenizer(tokenizer, **options)
    pieces, at = [], 0
    while at < len(ids):
        count = generator.choice((1, 1, 1, 2, 3, 7))
        pieces.append(detokenizer.push(ids[at : at + count]))
        at += count
    return [*pieces, detokenizer.finish()]


@pytest.mark.parametrize("name", ["byte", "gpt2", "stories"])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_real_text_in_any_split(name, text):
    tokenizer = load(name)
    ids = tokenizer.encode(text, add_special_tokens=False)
    generator = random.Random(len(text))
    for _ in range(5):
        pieces = pieces_of(tokenizer, ids, generator)
        assert "".join(pieces) == tokenizer.decode(ids)
        assert not any(BROKEN in piece for piece in pieces)


@pytest.mark.parametrize("name", ["byte", "gpt2"])
def test_any_tokens_in_any_split(name):
    tokenizer = load(name)
    generator = random.Random(5)
    for _ in range(200):
        # Many single bytes, so that broken characters are frequent.
        ids = [generator.randrange(256) if generator.random() < 0.5 else generator.randrange(tokenizer.size()) for _ in range(80)]
        assert "".join(pieces_of(tokenizer, ids, generator)) == tokenizer.decode(ids)


def test_byte_fallback_tokens_in_any_split():
    """Whole characters as single bytes among words; the text is the whole decode's."""
    tokenizer = load("stories")
    byte_ids = {byte: tokenizer.token_id(f"<0x{byte:02X}>") for byte in range(256)}
    generator = random.Random(6)
    words = list(range(259, 512))
    for _ in range(200):
        ids = []
        for _ in range(20):
            if generator.random() < 0.5:
                ids += [byte_ids[byte] for byte in generator.choice("é日🤖ß").encode()]
            else:
                ids.append(generator.choice(words))
        assert "".join(pieces_of(tokenizer, ids, generator)) == tokenizer.decode(ids)


def test_broken_bytes_of_byte_fallback_do_not_take_back_what_was_shown():
    tokenizer = load("stories")
    broken = [tokenizer.token_id(f"<0x{byte:02X}>") for byte in "日".encode() + b"\xff\xfe"]
    ids = broken + tokenizer.encode(" yes", add_special_tokens=False)
    text = "".join(pieces_of(tokenizer, ids, random.Random(1)))
    assert text.startswith("日" + BROKEN) and text.endswith("yes")


def test_special_tokens_are_left_out_or_shown():
    tokenizer = load("stories")
    word = tokenizer.encode("once upon", add_special_tokens=False)
    ids = [1, *word, *[2] * 100, *word, 2]
    generator = random.Random(3)
    for skip in (True, False):
        pieces = pieces_of(tokenizer, ids, generator, skip_special_tokens=skip)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip)


def test_ids_outside_the_vocabulary_are_no_text():
    tokenizer = load("byte")
    assert "".join(pieces_of(tokenizer, [*tokenizer.encode("ab"), 9999, -1, *tokenizer.encode("c")], random.Random(1))) == "abc"


@pytest.mark.parametrize("kind", ["words", "broken", "special"])
def test_each_token_costs_the_same_however_long_the_text(kind):
    tokenizer = load("byte")
    decoded = 0
    plain = tokenizer.decode

    def counting(ids, **options):
        nonlocal decoded
        decoded += len(ids)
        return plain(ids, **options)

    tokenizer.decode = counting
    broken = tokenizer.encode("é")[0]
    ids = {"words": tokenizer.encode("hello world " * 700), "broken": [broken] * 4000, "special": [tokenizer.eos_token_id] * 4000}[kind]
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False)
    for token in ids:
        detokenizer.push((token,))
    assert decoded < 60 * len(ids)


def test_token_texts():
    stories, byte = TokenTexts(load("stories")), TokenTexts(load("byte"))
    tokenizer = load("stories")
    assert stories.text(tokenizer.encode("once", add_special_tokens=False)[0]).startswith(" ")
    assert stories.text(2) == "</s>" and stories.bytes(tokenizer.token_id("<0xE6>")) == [0xE6]
    tokenizer = load("byte")
    half = tokenizer.encode("é")
    assert byte.text(half[0]) == BROKEN and byte.bytes(half[0]) == [0xC3] and byte.bytes(half[1]) == [0xA9]
    assert byte.text(5, as_id=True) == "token_id:5" and byte.bytes(10**6) == []
