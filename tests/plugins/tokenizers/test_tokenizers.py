"""Both tokenizer modes give the ids of transformers' AutoTokenizer, and user text cannot spell special tokens."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

import engine
from engine.plugin import Use
from engine_plugins.tokenizers import auto, slow
from tests.data import shared
from tests.plugins.tokenizers.places import checkpoint, fast

DEMO = Path(engine.__file__).parent / "bundled" / "demo"
TEXTS = [
    "",
    " ",
    "Once upon a time, there was a little girl.",
    "  two  spaces\n\nand\tlines \r\n",
    "naïve café – „Grüße“ … 12345 €",
    "日本語とemoji 👩‍👩‍👧 🏳️‍🌈 \u200d",
    "<s>not begin</s> <|endoftext|> <|im_start|>user",
    "x\x00y \x7f\ufffd",
    "don't we'll I'M",
]
PLACES = ["stories260k", "tokenizers/gpt2", "demo"]


def place_of(name: str) -> Path:
    if name != "demo":
        return shared(name)
    if not (DEMO / "tokenizer.json").exists():
        pytest.skip("the bundled model is not built yet")
    return DEMO


@pytest.fixture(scope="module", params=PLACES)
def pair(request):
    """Our fast tokenizer and transformers' for one place."""
    from transformers import AutoTokenizer

    place = place_of(request.param)
    return fast(place), AutoTokenizer.from_pretrained(str(place))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("special", [True, False])
def test_ids_equal_transformers(pair, text, special):
    ours, theirs = pair
    assert ours.encode(text, add_special_tokens=special) == theirs(text, add_special_tokens=special)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_plain_text_never_becomes_a_special_token(pair, text):
    ours, theirs = pair
    ids = ours.encode(text, add_special_tokens=False, allow_special=False)
    assert not ours.special_ids() & set(ids)
    assert ids == theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_equals_transformers(pair, text):
    ours, theirs = pair
    ids = ours.encode(text)
    for skip in (True, False):
        expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special_tokens=skip) == expected


def test_facts_equal_transformers(pair):
    ours, theirs = pair
    assert ours.size() == max(theirs.get_vocab().values()) + 1
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert set(theirs.all_special_ids) <= ours.special_ids()
    assert ours.chat_template() == theirs.chat_template
    assert ours.special_tokens()["eos_token"] == theirs.eos_token
    piece = theirs.convert_ids_to_tokens(300)
    assert ours.token_text(300) == piece
    assert ours.token_id(piece) == 300


def test_ids_outside_the_vocabulary(pair):
    ours, _ = pair
    assert ours.decode([-1, ours.size(), 10**12]) == ""
    assert ours.token_text(-1) == ours.token_text(ours.size()) == ""
    assert ours.token_id("no such piece") is None


def test_slow_mode_equals_auto():
    place = shared("stories260k")
    ours, theirs = fast(place), slow.engine_create_tokenizer(checkpoint(place))
    for text in TEXTS:
        for special in (True, False):
            assert theirs.encode(text, add_special_tokens=special) == ours.encode(text, add_special_tokens=special)
        plain = theirs.encode(text, add_special_tokens=False, allow_special=False)
        assert plain == ours.encode(text, add_special_tokens=False, allow_special=False)
        assert theirs.decode(plain) == ours.decode(plain)
    assert theirs.size() == ours.size()
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_token_id, ours.eos_token_id)
    assert theirs.token_text(300) == ours.token_text(300)
    assert theirs.token_id(theirs.token_text(300)) == 300
    assert theirs.decode([10**9]) == ""


def test_without_tokenizer_json_transformers_converts(tmp_path):
    source = shared("stories260k")
    shutil.copy(source / "tokenizer.model", tmp_path)
    settings = json.loads((source / "tokenizer_config.json").read_text()) | {"tokenizer_class": "LlamaTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    answer = auto.engine_create_tokenizer(checkpoint(tmp_path))
    assert isinstance(answer, Use)
    assert answer.name == "slow" and "no tokenizer.json" in answer.reason
    converted = slow.engine_create_tokenizer(checkpoint(tmp_path))
    text = "Once upon a time"
    assert converted.encode(text, add_special_tokens=False) == fast(source).encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", PLACES)
def test_a_megabyte_of_one_letter_takes_seconds(name):
    tokenizer = fast(place_of(name))
    text = "a" * 1_000_000
    begin = time.perf_counter()
    ids = tokenizer.encode(text, allow_special=False)
    assert time.perf_counter() - begin < 10
    assert tokenizer.decode(ids) == text


def test_both_readings_from_many_threads():
    tokenizer = fast(shared("stories260k"))
    text = "<s>once</s> upon"
    special, plain = tokenizer.encode(text), tokenizer.encode(text, allow_special=False)
    assert special != plain
    wrong: list[str] = []

    def work() -> None:
        for _ in range(200):
            if tokenizer.encode(text) != special or tokenizer.encode(text, allow_special=False) != plain:
                wrong.append("differs")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
