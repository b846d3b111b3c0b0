"""Quantized tensors find their layers: cut by part, by group and by rank, and joined."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.errors import ConfigError, ModelFileError
from engine.layers.linear import QKVParallelLinear, ReplicatedLinear, RowParallelLinear
from engine.layers.loading import NameRules, load_tensors
from engine.layers.packed import reference_kernel
from tests.core.layers.harness import Toy, context, dense, fill, quantized, weight_of


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (0, 2), (1, 2)])
def test_quantized_parts_are_cut_and_joined(rank, size):
    sizes = {"q": 16, "k": 8, "v": 8}
    entries = quantized(sizes, 8)
    layer = QKVParallelLinear(context(rank, size, quantizer=Toy()), "qkv", tuple(sizes), 8, num_heads=4, num_kv_heads=2, head_dim=4)
    packed = []
    layer.context = dataclasses.replace(layer.context, kernel=lambda p: packed.append(p) or reference_kernel(p))
    assert not fill(layer, {f"{name}.{suffix}": tensor for name, entry in entries.items() for suffix, tensor in entry.items()})
    rows = [dense(entry).chunk(size)[rank] for entry in entries.values()]
    torch.testing.assert_close(weight_of(layer), torch.cat(rows))
    assert packed[0].tensors["zero"].tolist() == [0.0, 1.0, 2.0]
    assert packed[0].layer.sizes == (16 // size, 8 // size, 8 // size)
    assert "order" not in packed[0].tensors


@pytest.mark.parametrize("rank", [0, 1])
def test_quantized_inputs_are_cut_by_group(rank):
    entry = quantized({"o": 6}, 16)["o"]
    layer = RowParallelLinear(context(rank, 2, quantizer=Toy()), "o", 16, 6)
    fill(layer, {f"o.{suffix}": tensor for suffix, tensor in entry.items()})
    torch.testing.assert_close(weight_of(layer), dense(entry)[:, 8 * rank : 8 * rank + 8])


def test_a_shard_that_would_cut_a_group_is_refused():
    entry = quantized({"o": 6}, 12)["o"]
    layer = RowParallelLinear(context(0, 2, quantizer=Toy()), "o", 12, 6)
    with pytest.raises(ConfigError, match=r"'o.scales' keeps groups of 4"):
        load_tensors(layer, [("o.scales", entry["scales"])], NameRules())


def test_a_quantized_tensor_of_the_wrong_size_is_named():
    layer = ReplicatedLinear(context(quantizer=Toy()), "o", 8, 6)
    with pytest.raises(ModelFileError, match=r"'o.codes' .* asks for 3 along axis 1"):
        load_tensors(layer, [("o.codes", torch.zeros(8, 6))], NameRules())


def test_layers_that_the_checkpoint_leaves_unquantized_stay_dense():
    layer = ReplicatedLinear(context(quantizer=Toy()), "plain", 8, 6)
    weight = torch.randn(6, 8)
    fill(layer, {"plain.weight": weight})
    assert torch.equal(weight_of(layer), weight)
