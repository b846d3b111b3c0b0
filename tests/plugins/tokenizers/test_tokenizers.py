"""Both tokenizer modes give the ids of transformers' AutoTokenizer, and user text cannot spell special tokens."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

import engine
from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Use
from engine_plugins.tokenizers import auto, slow
from tests.data import shared

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


def checkpoint(place: Path) -> Checkpoint:
    return Checkpoint(model=str(place), path=str(place), config_path=str(place), tokenizer_path=str(place))


def place_of(name: str) -> Path:
    if name != "demo":
        return shared(name)
    if not (DEMO / "tokenizer.json").exists():
        pytest.skip("the bundled model is not built yet")
    return DEMO


def fast(place: Path):
    made = auto.engine_create_tokenizer(checkpoint(place))
    assert not isinstance(made, Use)
    return made


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


def make(tmp_path: Path, **files: object) -> Path:
    """A tiny byte-level tokenizer's directory with the given JSON or text files beside it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    made.enable_truncation(4)
    made.enable_padding(length=16, pad_token="<|end|>", pad_id=256)
    made.save(str(tmp_path / "tokenizer.json"))
    for name, content in files.items():
        file = name.replace("__", "/").replace("_jinja", ".jinja") if name.endswith("_jinja") else f"{name}.json"
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


ADDED = {
    "256": {
        "content": "<|end|>",
        "special": True,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
    },
    "257": {
        "content": "<tool>",
        "special": False,
        "normalized": False,
        "lstrip": False,
        "rstrip": True,
        "single_word": False,
    },
}
NEIGHBOURS = [
    {
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|end|>",
            "bos_token": "<|begin|>",
        }
    },
    {
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|end|>",
            "added_tokens_decoder": ADDED,
        }
    },
    {
        "tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "special_tokens_map": {
            "eos_token": {"content": "<|end|>", "lstrip": False, "rstrip": False},
            "pad_token": "<pad>",
        },
        "added_tokens": {"<extra>": 257},
    },
    {
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|end|>",
            "additional_special_tokens": ["<|a|>", "<|b|>"],
            "image_token": "<img>",
        }
    },
]


@pytest.mark.parametrize("files", NEIGHBOURS)
def test_tokens_of_the_neighbouring_files(tmp_path, files):
    from transformers import AutoTokenizer

    place = make(tmp_path, **files)
    ours, theirs = fast(place), AutoTokenizer.from_pretrained(str(place))
    text = "a<|end|> <tool>  b<|begin|><extra><|a|>c<|b|><pad> <img> and longer than the truncation of the file"
    assert ours.encode(text) == theirs(text)["input_ids"]
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"chat_template_jinja": "J", "tokenizer_config": {"chat_template": "C"}}, "J"),
        ({"chat_template": {"chat_template": "P"}, "tokenizer_config": {"chat_template": "C"}}, "P"),
        ({"tokenizer_config": {"chat_template": "C"}}, "C"),
        ({"tokenizer_config": {"chat_template": [{"name": "default", "template": "D"}]}}, "D"),
        (
            {
                "tokenizer_config": {
                    "chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
                }
            },
            {"default": "D", "tool_use": "T"},
        ),
        ({"chat_template_jinja": "J", "additional_chat_templates__rag_jinja": "R"}, {"default": "J", "rag": "R"}),
        ({}, None),
    ],
)
def test_chat_templates(tmp_path, files, expected):
    assert fast(make(tmp_path, **files)).chat_template() == expected


@pytest.mark.parametrize(
    ("file", "content", "shown"),
    [
        ("tokenizer.json", "{", "tokenizer.json is not valid JSON"),
        ("tokenizer.json", "{}", "tokenizer.json is not understood"),
        ("tokenizer.json", "", "not a regular file with content"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json holds no JSON object"),
        ("tokenizer_config.json", '{"eos_token": {"nothing": 1}}', "eos_token holds"),
        ("tokenizer_config.json", '{"chat_template": [1]}', "chat_template is a list without"),
        ("tokenizer_config.json", '{"chat_template": 1}', "chat_template is 1"),
        ("tokenizer_config.json", '{"bos_token": 7}', "bos_token holds 7"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, shown):
    make(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(ModelFileError, match=shown) as caught:
        auto.engine_create_tokenizer(checkpoint(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_contradiction_that_shows_at_first_use_is_found_at_load(tmp_path):
    make(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    special = {"SpecialToken": {"id": "<|end|>", "type_id": 0}}
    content["post_processor"] = {"type": "TemplateProcessing", "single": [special, piece], "pair": [piece], "special_tokens": {}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match=r"tokenizer\.json is not understood"):
        auto.engine_create_tokenizer(checkpoint(tmp_path))


def test_slow_names_the_place_without_a_tokenizer(tmp_path):
    with pytest.raises(ModelFileError, match="transformers cannot read a tokenizer there") as caught:
        slow.engine_create_tokenizer(checkpoint(tmp_path))
    assert str(tmp_path) in str(caught.value)


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
