"""Every architecture, quantized by every method: the engine reads back what the formats' own libraries read of the file."""

from __future__ import annotations

import json

import pytest
import torch

from tests.gguf.test_families import FAMILIES, source
from tests.quant.checkpoints import logits_of, logits_of_transformers, worst
from tests.quantize.runs import meant_by, meant_by_gguf, plain

FEW = ("llama", "mixtral", "phi3")
#: What differs between a product that is rounded once and one that is rounded after each scale.
NEAR = 2e-5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def checkpoint(path, name):
    """With ends of outputs within the tiny vocabulary."""
    place, _ = source(path, name)
    (place / "generation_config.json").unlink()
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}))
    return place


def transposed(name: str) -> bool:
    return name == "gpt2"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["int4", "gguf_q4_0"])
def test_four_bits(method, name, tmp_path):
    check(method, name, tmp_path)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("method", ["int8", "fp8", "nf4", "gguf_q8_0"])
def test_the_other_methods(method, name, tmp_path):
    if method == "nf4":
        pytest.importorskip("bitsandbytes")
    check(method, name, tmp_path)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("flag", ["--include-head", "--no-include-head"])
@pytest.mark.parametrize("method", ["int4", "fp8"])
def test_embedding_and_head_alike_and_as_they_are(method, flag, name, tmp_path):
    check(method, name, tmp_path, flag)


def check(method, name, tmp_path, *flags):
    place = checkpoint(tmp_path / "source", name)
    if method == "fp8":
        # Rounded activations are another test's.
        flags = (*flags, "--method-config", '{"activations": "none"}')
    report = plain(place, tmp_path / "out", method, *flags)
    if method.startswith("gguf"):
        pytest.importorskip("gguf")
        meant = meant_by_gguf(place, method.removeprefix("gguf_").upper())
    else:
        meant = meant_by(tmp_path / "out")
        if transposed(name):
            meant = {key: value if "wte" in key else value.t().contiguous() for key, value in meant.items()}
    assert report["quantized"] == len(meant) > 4
    assert 0 < report["rms_error"] < 0.12
    wanted = logits_of_transformers(place, meant, tmp_path)
    assert worst(logits_of(tmp_path / "out"), wanted) < NEAR
