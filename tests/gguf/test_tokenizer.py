"""Vocabularies from GGUF metadata: the ids of the tokenizers that they were written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Use
from engine_plugins._gguf.splits import SPLITS
from engine_plugins.tokenizers import auto, slow
from tests.data import shared

SEPARATOR = "\n__ggml_vocab_test__\n"
TEXTS = (
    "Hello world", " Hello  world ", "", " ", "\n\n \t x", "I'll say it's 12345 or 3.14, WON'T you?", "Grüße aus Köln — naïve café",
    "日本語のテキスト 123 と 한국어", "нещо на Български", "🦙.cpp 🚀👍🏽", "def f(x):\n    return x**2  # ok\r\n", "a" * 50,
    "\x00\x7f é e\u0301", "http://x.y/z?q=1&r=%20",
    "CamelCase snake_case ALLCAPS", "  leading", "trailing  ", "᠎ thin\u2009space", "१२३ ४५६",
)  # fmt: skip


def tokenizer(path: Path) -> Any:
    return auto.engine_create_tokenizer(Checkpoint(str(path), str(path), str(path.parent), str(path.parent)))


def write_vocabulary(path: Path, model: str, pieces: list[str], kinds: list[int] | None = None, **keys: Any) -> Path:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, keys.pop("architecture", "llama"))
    writer.add_tokenizer_model(model)
    writer.add_token_list(pieces)
    if kinds is not None:
        writer.add_token_types(kinds)
    for key, value in keys.items():
        getattr(writer, key)(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def byte_level(path: Path, source: dict[str, Any], pre: str, **keys: Any) -> Path:
    """A tokenizer.json's byte-level vocabulary as llama.cpp's converter writes it."""
    added = {token["content"]: token for token in source["added_tokens"]}
    vocabulary = source["model"]["vocab"] | {text: token["id"] for text, token in added.items()}
    pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    assert [vocabulary[piece] for piece in pieces] == list(range(len(pieces)))
    kinds = [1 if piece not in added else 3 if added[piece]["special"] else 4 for piece in pieces]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in source["model"]["merges"]]
    return write_vocabulary(path, "gpt2", pieces, kinds, add_token_merges=merges, add_tokenizer_pre=pre, **keys)


@pytest.mark.parametrize("name", ["gpt-2", "phi-3"])
def test_the_recorded_vectors(name):
    place = shared("tokenizers/gguf-vocab")
    made = tokenizer(place / f"ggml-vocab-{name}.gguf")
    texts = (place / f"ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8").split(SEPARATOR)[:-1]
    wanted = [[int(part) for part in line.split()] for line in (place / f"ggml-vocab-{name}.gguf.out").read_text().splitlines()]
    assert len(texts) == len(wanted) == 46
    for text, ids in zip(texts, wanted, strict=True):
        assert made.encode(text, add_special_tokens=False) == ids, text
        assert made.decode(ids) == text


def test_gpt2_equals_its_tokenizer_json():
    from tokenizers import Tokenizer

    real = Tokenizer.from_file(str(shared("tokenizers/gpt2") / "tokenizer.json"))
    made = tokenizer(shared("tokenizers/gguf-vocab") / "ggml-vocab-gpt-2.gguf")
    assert made.size() == real.get_vocab_size()
    for text in TEXTS:
        ids = real.encode(text).ids
        assert made.encode(text) == ids
        assert made.decode(ids) == real.decode(ids)
    end = "<|endoftext|>"
    assert made.encode(f"a{end}b") != made.encode(f"a{end}b", allow_special=False)
    assert made.special_ids() == {50256}
    assert (made.eos_token_id, made.bos_token_id) == (50256, 50256)


def test_the_phi_3_file_has_its_special_tokens_and_template():
    made = tokenizer(shared("tokenizers/gguf-vocab") / "ggml-vocab-phi-3.gguf")
    assert made.encode("Hi")[0] == 1
    assert made.token_text(32010) == "<|user|>"
    ids = made.encode("<|user|>\nHi<|end|>\n<|assistant|>\n", add_special_tokens=False)
    assert ids[0] == 32010
    assert ids[-2:] == [32007, 32001]
    assert 32010 not in made.encode("<|user|>", allow_special=False)
    assert "<|assistant|>" in made.chat_template()
    assert made.special_tokens()["eos_token"] == "<|endoftext|>"
    assert made.decode(made.encode("Hi<|end|>")) == "Hi"


def pieces_of(model: Path) -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and kinds of a SentencePiece model."""
    library = pytest.importorskip("sentencepiece")
    processor = library.SentencePieceProcessor(str(model))
    count = processor.vocab_size()

    def kind(index: int) -> int:
        for number, is_one in ((2, processor.is_unknown), (3, processor.is_control), (6, processor.is_byte), (5, processor.is_unused)):
            if is_one(index):
                return number
        return 1

    return (
        [processor.id_to_piece(index) for index in range(count)], [processor.get_score(index) for index in range(count)],
        [kind(index) for index in range(count)],
    )  # fmt: skip


@pytest.mark.parametrize("name", ["stories260k/tokenizer.model", "tokenizers/mistral-v3/mistral_instruct_tokenizer_240323.model.v3"])
def test_scores_merge_as_sentencepiece_does(name, tmp_path):
    library = pytest.importorskip("sentencepiece")
    model = shared(name.split("/")[0]) / "/".join(name.split("/")[1:])
    pieces, scores, kinds = pieces_of(model)
    path = write_vocabulary(
        tmp_path / "m.gguf", "llama", pieces, kinds, add_token_scores=scores, add_bos_token_id=1, add_eos_token_id=2, add_unk_token_id=0,
        add_add_bos_token=True, add_add_eos_token=False,
    )  # fmt: skip
    made, real = tokenizer(path), library.SentencePieceProcessor(str(model))
    for text in TEXTS:
        if "\x00" not in text:  # which ends a text there
            assert made.encode(text) == [1, *real.encode(text)], text
            assert made.decode(made.encode(text)) == text
    assert made.encode("</s>", allow_special=False)[0] == 1
    assert 2 in made.encode("a</s>")
    assert 2 not in made.encode("a</s>", allow_special=False)


def test_the_trained_model_equals_its_tokenizer_json(tmp_path):
    from tokenizers import Tokenizer

    place = shared("stories260k")
    pieces, scores, kinds = pieces_of(place / "tokenizer.model")
    made = tokenizer(write_vocabulary(tmp_path / "m.gguf", "llama", pieces, kinds, add_token_scores=scores))
    real = Tokenizer.from_file(str(place / "tokenizer.json"))
    for text in (*TEXTS, "Once upon a time there was a little girl named Lily."):
        assert made.encode(text) == real.encode(text).ids, text


@pytest.mark.parametrize("pre", sorted(SPLITS))
def test_every_split_loses_nothing(pre, tmp_path):
    source = json.loads((shared("tokenizers/gpt2") / "tokenizer.json").read_text())
    made = tokenizer(byte_level(tmp_path / "m.gguf", source, pre, add_add_bos_token=False))
    for text in TEXTS:
        ids = made.encode(text, add_special_tokens=False)
        assert made.decode(ids) == (text.replace("e\u0301", "é") if pre == "qwen2" else text)


def test_digits_and_letters_are_cut_as_each_family_cuts_them(tmp_path):
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Sequence, Split

    def words(pre: str, text: str) -> list[str]:
        cuts = Sequence([Split(Regex(pattern), "isolated") for pattern in SPLITS[pre].patterns])
        return [word for word, _ in cuts.pre_tokenize_str(text)]

    assert words("gpt-2", "it's 12345") == ["it", "'s", " 12345"]
    assert words("llama-bpe", "IT'S 12345") == ["IT", "'S", " ", "123", "45"]
    assert words("qwen2", "a 123\n\nb") == ["a", " ", "1", "2", "3", "\n\n", "b"]
    assert words("tekken", "camelCase HTTPServer") == ["camel", "Case", " HTTPServer"]
    assert words("gpt-4o", "Don't 1234") == ["Don't", " ", "123", "4"]
    assert words("smollm", "x12 y") == ["x", "1", "2", " y"]
    assert words("deepseek-v3", "日本 12345") == ["日本", " ", "123", "45"]


def test_bos_and_eos_as_the_file_says(tmp_path):
    source = json.loads((shared("tokenizers/gpt2") / "tokenizer.json").read_text())
    end = 50256
    both = {"add_bos_token_id": end, "add_eos_token_id": end}
    plain = tokenizer(byte_level(tmp_path / "a.gguf", source, "gpt-2", **both))
    assert plain.encode("a") == [64]
    around = tokenizer(byte_level(tmp_path / "b.gguf", source, "gpt-2", **both, add_add_bos_token=True, add_add_eos_token=True))
    assert around.encode("a") == [end, 64, end]
    assert around.encode("a", add_special_tokens=False) == [64]
    begins = tokenizer(byte_level(tmp_path / "c.gguf", source, "llama-bpe", **both))
    assert begins.encode("a") == [end, 64]


def test_templates_by_name(tmp_path):
    source = json.loads((shared("tokenizers/gpt2") / "tokenizer.json").read_text())
    templates = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    made = tokenizer(byte_level(tmp_path / "m.gguf", source, "gpt-2", add_chat_template=templates))
    assert made.chat_template() == {"default": "A", "tool_use": "B"}


def test_a_tokenizer_beside_the_file_wins_and_slow_says_why_not(tmp_path):
    source = json.loads((shared("tokenizers/gpt2") / "tokenizer.json").read_text())
    path = byte_level(tmp_path / "m.gguf", source, "gpt-2")
    at = Checkpoint(str(path), str(path), str(tmp_path), str(tmp_path))
    assert slow.engine_create_tokenizer(at) == Use("auto", "the vocabulary is in a GGUF file, which is read in one way only")
    (tmp_path / "tokenizer.json").write_text((shared("stories260k") / "tokenizer.json").read_text())
    assert auto.engine_create_tokenizer(at).size() == 512
    named = Checkpoint(str(path), str(path), str(tmp_path), str(path))
    assert auto.engine_create_tokenizer(named).size() == 50257


def test_a_file_without_a_vocabulary_says_what_to_give(tmp_path):
    from tests.gguf.files import build, entry, text, write

    path = write(tmp_path / "m.gguf", build([entry("general.architecture", "str", text("llama"))], []))
    with pytest.raises(ModelFileError, match="holds no vocabulary: tokenizer.ggml.model is missing") as caught:
        tokenizer(path)
    assert "--tokenizer DIR" in str(caught.value.fix)


WORDS = ["<unk>", "<s>", "</s>", "a", "b", "ab"]
SCORES = {"add_token_scores": [0.0] * 6}
BROKEN = {
    "an unknown model": (("wordpiece", WORDS), {}, "tokenizer.ggml.model is 'wordpiece'"),
    "no merges": (("gpt2", WORDS), {"add_tokenizer_pre": "gpt-2"}, "tokenizer.ggml.merges is missing"),
    "an unknown split": (("gpt2", WORDS), {"add_tokenizer_pre": "none", "add_token_merges": ["a b"]}, "tokenizer.ggml.pre is 'none'"),
    "no scores": (("llama", WORDS), {}, "tokenizer.ggml.scores is missing"),
    "few scores": (("llama", WORDS), {"add_token_scores": [0.0]}, "tokenizer.ggml.scores has 1 entries; 6 were expected"),
    "few kinds": (("llama", WORDS, [1, 1]), SCORES, "tokenizer.ggml.token_type has 2 entries; 6"),
    "an end outside": (("llama", WORDS), SCORES | {"add_eos_token_id": 6}, "tokenizer.ggml.eos_token_id is 6; a whole number from 0 to 5"),
    "a merge of one": (("gpt2", WORDS), {"add_tokenizer_pre": "gpt-2", "add_token_merges": ["ab"]}, "entry 0 of tokenizer.ggml.merges"),
    "a merge of unknown pieces": (("gpt2", WORDS), {"add_tokenizer_pre": "mpt", "add_token_merges": ["x y"]}, "its vocabulary is not"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_vocabulary_is_named(what, tmp_path):
    arguments, keys, message = BROKEN[what]
    path = write_vocabulary(tmp_path / "m.gguf", *arguments, **keys)
    with pytest.raises(ModelFileError) as caught:
        tokenizer(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
