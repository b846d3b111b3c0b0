"""AQLM checkpoints against the sum of codebook entries written out, whole models, two ranks, damage."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ModelFileError
from engine.layers.packed_quantized import Joined
from tests.quant.checkpoints import (
    change_tensors,
    load_model,
    logits_of,
    logits_of_transformers,
    worst,
    write_quantized,
)

BASE = {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1}
SHAPES = [(1, 16, 8), (2, 8, 8), (3, 5, 4)]


def additive(weight, books, bits, wide):
    """Random codes of a layer's shape: what a decoder must do does not depend on how good they are."""
    outputs, inputs = weight.shape
    codes = torch.randint(0, 1 << bits, (outputs, inputs // wide, books))
    tables = (torch.randn(books, 1 << bits, 1, wide) * weight.std()).half()
    scales = (torch.rand(outputs, 1, 1, 1) + 0.5).half()
    # The Python loop is over codebooks only: Σ tables[c][codes[..., c]].
    total = sum(tables[c, codes[..., c], 0].float() for c in range(books)).flatten(1)
    stored = torch.int8 if bits <= 8 else torch.int16
    tensors = {"codes": codes.to(stored), "codebooks": tables, "scales": scales}
    return tensors, total * scales.float().view(-1, 1)


def config(books, bits, wide):
    return BASE | {"num_codebooks": books, "nbits_per_codebook": bits, "in_group_size": wide}


@pytest.mark.parametrize(("books", "bits", "wide"), SHAPES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_checkpoints(llama, tmp_path, books, bits, wide, ranks):
    torch.manual_seed(books)
    dense = write_quantized(tmp_path / "q", llama, lambda _, w: additive(w, books, bits, wide), config(books, bits, wide))
    assert worst(logits_of(tmp_path / "q", ranks=ranks), logits_of_transformers(llama, dense, tmp_path)) < 2e-5


def test_layers_that_are_listed_stay_plain(llama, tmp_path):
    plain = "model.layers.0.self_attn.k_proj"
    dense = write_quantized(
        tmp_path / "q", llama, lambda name, w: None if name == plain else additive(w, 2, 8, 8),
        config(2, 8, 8) | {"linear_weights_not_to_quantize": [f"{plain}.weight", "lm_head.weight", "model.embed_tokens.weight"]},
    )  # fmt: skip
    assert worst(logits_of(tmp_path / "q"), logits_of_transformers(llama, dense, tmp_path)) < 2e-5
    model, _ = load_model(tmp_path / "q")
    fused = [layer.kernel for layer in model.modules() if len(getattr(layer, "parts", ())) == 3]
    assert [len(kernel.inner) for kernel in fused] == [3, 3] and Joined.layout == "joined"


@pytest.mark.parametrize("suffix", ["codes", "codebooks", "scales"])
def test_damage_names_the_tensor(llama, tmp_path, suffix):
    write_quantized(tmp_path / "q", llama, lambda _, w: additive(w, 2, 8, 8), config(2, 8, 8))
    name = f"model.layers.0.mlp.down_proj.{suffix}"
    change_tensors(tmp_path / "q", lambda tensors: tensors.update({name: tensors[name][:1].clone()}))
    with pytest.raises(ModelFileError, match=name):
        load_model(tmp_path / "q")
