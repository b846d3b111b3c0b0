"""The files beside tokenizer.json: what they say of tokens and templates, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import ModelFileError
from engine_plugins.tokenizers import auto, slow
from tests.plugins.tokenizers.places import checkpoint, fast


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
