"""2:4 sparse weights of compressed-tensors: the bit mask's layout from its specification, Marlin-24's from an independent packer."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ModelFileError
from tests.quant import checkpoints, floats, tiles
from tests.quant.checkpoints import logits_of, logits_of_transformers, packed_weights, tiny_llama, worst, write_quantized

SPARSE = {"format": "sparse-24-bitmask", "sparsity_structure": "2:4", "targets": ["Linear"], "ignore": ["lm_head"]}
DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("source"))


def halve(weight):
    """The mask of the two largest of every four inputs."""
    order = weight.unflatten(1, (-1, 4)).abs().argsort(-1, descending=True)
    return torch.zeros_like(weight).unflatten(1, (-1, 4)).scatter(-1, order[..., :2], 1.0).flatten(1).bool()


def pack_mask(mask):
    """Eight inputs to a byte, the first in the lowest bit."""
    bits = mask.to(torch.int64).unflatten(1, (-1, 8))
    return sum(bits[..., i] << i for i in range(8)).to(torch.uint8)


def compressed(values, mask, **more):
    kept = torch.stack([row[keep] for row, keep in zip(values.float(), mask, strict=True)]).to(values.dtype)
    return {"compressed": kept, "bitmask": pack_mask(mask), "shape": torch.tensor(values.shape), **more}


def plain(_, weight):
    mask = halve(weight)
    return compressed(weight, mask), weight * mask


def float8(_, weight):
    mask = halve(weight)
    values, scale, dense = floats.float8(weight * mask, per_output=True)
    return compressed(values, mask, weight_scale=scale.unsqueeze(1)), dense


def int8(_, weight):
    mask = halve(weight)
    tensors, dense = floats.integer8(weight * mask)
    return compressed(tensors["weight"], mask, weight_scale=tensors["weight_scale"].unsqueeze(1)), dense


def config(kind, format):
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "channel"}, "format": format}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": {"g": group}, "ignore": ["lm_head"]}


@pytest.mark.parametrize(
    ("pack", "quantization"),
    [
        (plain, {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}, "ignore": ["lm_head"]}),
        (float8, config("float", "float-quantized")),
        (int8, config("int", "int-quantized")),
    ],
    ids=["plain", "float8", "int8"],
)
def test_bit_masks(pack, quantization, source, tmp_path):
    dense = write_quantized(tmp_path / "q", source, pack, quantization | {"sparsity_config": SPARSE})
    found = packed_weights(tmp_path / "q")["blocks.1.mlp.down"]
    assert found.layout == "sparse24"
    assert torch.allclose(found.dequantize(torch.float32), dense[f"{DOWN}.weight"], rtol=1e-6, atol=0)
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", native=True, dtype="bfloat16"), wanted) < 4e-2


@pytest.mark.parametrize(("bits", "group"), [(4, 128), (4, -1), (8, 128)])
def test_marlin_24(bits, group, tmp_path):
    source = tiny_llama(tmp_path / "source", hidden_size=256, intermediate_size=256, num_key_value_heads=4, head_dim=64)

    def pack(_, weight):
        tensors, dense = tiles.marlin_24(weight, bits, group)
        return {"weight_packed": tensors["B_24"], "scale_packed": tensors["s"], "meta": tensors["B_meta"]}, dense

    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group" if group > 0 else "channel"}
    entry = {"targets": ["Linear"], "weights": weights | ({"group_size": group} if group > 0 else {})}
    quantization = {"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {"g": entry}, "ignore": ["lm_head"]}
    dense = write_quantized(tmp_path / "q", source, pack, quantization)
    assert packed_weights(tmp_path / "q")["blocks.0.attention.qkv"].layout == "sparse24"
    wanted = logits_of_transformers(source, dense, tmp_path)
    assert worst(logits_of(tmp_path / "q"), wanted) < 1e-5
    assert worst(logits_of(tmp_path / "q", ranks=2), wanted) < 1e-5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t[f"{DOWN}.bitmask"].fill_(255), r"down_proj.bitmask.*two of every four"),
        (lambda t: t.pop(f"{DOWN}.bitmask"), r"down_proj.bitmask"),
        (lambda t: t.update({f"{DOWN}.compressed": t[f"{DOWN}.compressed"][:, :9].clone()}), r"down_proj.compressed.*\[128, 9\]"),
    ],
)
def test_damaged_tensors_are_named(change, said, source, tmp_path):
    quantization = config("int", "int-quantized") | {"sparsity_config": SPARSE}
    write_quantized(tmp_path / "q", source, int8, quantization)
    checkpoints.change_tensors(tmp_path / "q", change)
    with pytest.raises(ModelFileError, match=said):
        logits_of(tmp_path / "q")
