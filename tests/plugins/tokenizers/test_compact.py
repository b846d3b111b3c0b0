"""A large tokenizer.json read part by part is the tokenizer that the library reads as a whole, in less memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engine.errors import ModelFileError
from engine_plugins.tokenizers import _compact
from engine_plugins.tokenizers._fast import FastTokenizer
from tests.data import shared
from tests.plugins.tokenizers.test_tokenizers import TEXTS

TOKENS = 40_000


def content(**changes: object) -> dict:
    """A byte-level tokenizer whose tokens are joined at random, with added tokens of every kind."""
    from engine.plugin.vocabulary import byte_characters

    chance = random.Random(11)
    texts = list(byte_characters())
    known, merges = set(texts), []
    while len(texts) < TOKENS:
        left, right = chance.choice(texts[:2000]), chance.choice(texts)
        if len(left + right) < 24 and left + right not in known:
            known.add(left + right)
            texts.append(left + right)
            merges.append([left, right])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [
        {"id": TOKENS, "content": "<|end|>", **flags},
        {"id": TOKENS + 1, "content": "<|left|>", **flags, "lstrip": True},
        {"id": TOKENS + 2, "content": "<call>", **flags, "special": False, "normalized": True},
        {"id": 300, "content": texts[300], **flags, "special": False},
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {text: i for i, text in enumerate(texts)}, "merges": merges, "byte_fallback": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
        "pre_tokenizer": level, "post_processor": level, "decoder": level, "model": model,
    } | changes  # fmt: skip


def write(place: Path, file: dict) -> Path:
    path = place / "tokenizer.json"
    path.write_text(json.dumps(file, ensure_ascii=False))
    (place / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return path


def texts() -> list[str]:
    chance = random.Random(5)
    alphabet = "abcdefgh XYZ  \n\t0123456789{}[]-é日本ßЖ👩"
    made = ["".join(chance.choice(alphabet) for _ in range(chance.randrange(1, 80))) for _ in range(200)]
    return [*TEXTS, "a<|end|>b  <|left|> <call>c", "e\u0301", *made]


def check(compact: Tokenizer, whole: Tokenizer) -> None:
    assert compact.get_added_tokens_decoder() == whole.get_added_tokens_decoder()
    assert compact.get_vocab() == whole.get_vocab()
    ours, theirs = json.loads(compact.to_str()), json.loads(whole.to_str())
    assert ours.pop("model") == theirs.pop("model")
    assert ours == theirs
    for text in texts():
        ids = whole.encode(text).ids
        assert compact.encode(text).ids == ids, text
        for skip in (False, True):
            assert compact.decode(ids, skip_special_tokens=skip) == whole.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("written", ["pairs", "texts"])
def test_it_is_the_tokenizer_of_the_file(tmp_path, written):
    file = content()
    if written == "texts":
        file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]
    path = write(tmp_path, file)
    compact = _compact.read(path)
    assert compact is not None
    check(compact, Tokenizer.from_file(str(path)))


def test_a_real_one(tmp_path):
    path = Path(shared("tokenizers/gpt2")) / "tokenizer.json"
    compact = _compact.read(path)
    assert compact is not None
    check(compact, Tokenizer.from_file(str(path)))


def other_model() -> dict:
    scores = [[f"▁piece{i}", -float(i)] for i in range(60_000)]
    return {"type": "Unigram", "unk_id": 0, "vocab": scores, "byte_fallback": False}


@pytest.mark.parametrize(
    "change",
    [
        {"model": other_model()},
        {"added_tokens": [{**content()["added_tokens"][0], "id": TOKENS + 7}]},
        {"added_tokens": content()["added_tokens"][:1] * 2},
        {"added_tokens": [{**content()["added_tokens"][0], "colour": "red"}]},
        {"pre_tokenizer": {"type": "Unheard"}},
    ],
    ids=["unigram", "another id", "twice", "unknown field", "unknown part"],
)
def test_other_files_are_left_to_the_library(tmp_path, change):
    path = write(tmp_path, content(**change))
    assert _compact.read(path) is None


def test_small_files_are_left_to_the_library(tmp_path):
    file = content()
    model = file["model"]
    model["merges"], model["vocab"] = [], dict(list(model["vocab"].items())[:256])
    assert _compact.read(write(tmp_path, file | {"added_tokens": []})) is None


def test_what_is_wrong_is_said_by_the_library(tmp_path):
    file = content()
    file["model"]["merges"].append(["no such", "token"])
    write(tmp_path, file)
    with pytest.raises(ModelFileError, match="no such"):
        FastTokenizer(tmp_path)


RESIDENT = """
import sys
from pathlib import Path
import tokenizers, msgspec, engine.plugin
from engine.footprint import one_arena, settle
from engine_plugins.tokenizers import _compact
from engine_plugins.tokenizers._fast import FastTokenizer
if sys.argv[2] == "whole":
    _compact.read = lambda file: None
def anonymous():
    settle()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
one_arena()
before = anonymous()
tokenizer = FastTokenizer(Path(sys.argv[1]))
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_takes_less_memory(tmp_path):
    write(tmp_path, content())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def kilobytes(how: str) -> int:
        command = [sys.executable, "-c", RESIDENT, str(tmp_path), how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout)

    assert kilobytes("compact") < 0.8 * kilobytes("whole")
