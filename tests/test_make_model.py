"""The checkpoint maker of the benchmarks: a model that loads, with a tokenizer of exactly its vocabulary."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from benchmarks import make_model


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    shape = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "intermediate_size": 24, "vocab_size": 2000,
    }  # fmt: skip
    monkeypatch.setitem(make_model.SHAPES, "tiny", shape)
    make_model.write(tmp_path, "tiny", 3, "bfloat16", 128)
    return tmp_path


def test_every_id_is_text_and_text_comes_back():
    tokenizer = make_model.make_tokenizer(2000)
    assert tokenizer.get_vocab_size() == 2000
    text = "abacus zebra, 42 Übung\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert all(tokenizer.decode([token]) for token in range(2000 - len(make_model.SPECIAL)))
    assert tokenizer.encode(make_model.TURN_END).ids == [1999]


def test_transformers_loads_it_and_the_same_seed_gives_the_same_file(tiny, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    assert model(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, 2000)
    assert json.loads((tiny / "config.json").read_text())["eos_token_id"] == 1999
    again = tmp_path_factory.mktemp("again")
    make_model.write(again, "tiny", 3, "bfloat16", 128)
    assert (again / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    with safe_open(tiny / "model.safetensors", framework="pt") as file:
        assert set(model.state_dict()) - set(file.keys()) == {"lm_head.weight"}
