"""Layers are packed as soon as their tensors have arrived; what is quantized while loading; embeddings and mixed parts."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import nn

from engine.errors import ModelFileError
from engine.layers.embedding import LMHead, VocabParallelEmbedding
from engine.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, ReplicatedLinear, RowParallelLinear
from engine.layers.loading import NameRules, load_tensors
from engine.layers.moe import ExpertNames, SparseMLP
from engine.layers.packed import DensePacked, reference_kernel
from engine.layers.packed_quantized import GroupedInteger, Joined
from engine.plugin import CheckpointTensor, PartFormats, Quantizer, WeightFormat
from tests.core.layers.harness import Toy, context, quantized, weight_of


class Rounded(WeightFormat):
    """8-bit rounding while loading."""

    def tensors(self):
        return (CheckpointTensor("weight", 0, 1, plain=True),)

    def pack(self, layer, tensors, dtype):
        assert tensors["weight"].dtype == dtype and tuple(tensors["weight"].shape) == (layer.outputs, layer.inputs)
        return GroupedInteger.quantize(tensors["weight"], bits=8)


class Online(Quantizer):
    def linear(self, layer):
        return Rounded() if layer.role == "linear" else None

    def embedding(self, layer):
        assert layer.role == "embedding"
        return Rounded()


def rounded(weight):
    return GroupedInteger.quantize(weight, bits=8).dequantize(torch.float32)


def test_a_layer_is_finished_when_its_tensors_are_there():
    root = nn.ModuleList([ReplicatedLinear(context(), name, 4, 4) for name in "abc"])
    seen = []

    def tensors():
        for name in "abc":
            yield f"{name}.weight", torch.eye(4)
            seen.append([layer.finished for layer in root])

    assert load_tensors(root, tensors(), NameRules()) == set()
    assert seen == [[True, False, False], [True, True, False], [True, True, True]]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_layer_waits_for_the_optional_tensors_that_will_come(threads):
    entry = quantized({"o": 6}, 8)["o"]
    tensors = {f"o.{suffix}": tensor for suffix, tensor in entry.items()}
    orders = []

    def load(given, expected):
        layer = ReplicatedLinear(context(quantizer=Toy()), "o", 8, 6)
        packed = []
        layer.context = dataclasses.replace(layer.context, kernel=lambda p: packed.append(p) or reference_kernel(p))
        load_tensors(layer, given.items(), NameRules(), threads=threads, expected=expected)
        orders.append(sorted(packed[0].tensors) if packed else None)
        return layer

    assert load(tensors, set(tensors)).finished
    with_order = {**tensors, "o.order": torch.arange(8)}
    assert load(with_order, set(with_order)).finished
    # Nobody said what will come: the end of loading decides.
    assert not load(tensors, None).finished
    assert orders == [["codes", "scales", "zero"], ["codes", "order", "scales", "zero"], None]


def test_plain_weights_are_quantized_while_loading():
    weight = torch.randn(6, 8, dtype=torch.bfloat16)
    for transposed in (False, True):
        layer = ReplicatedLinear(context(quantizer=Online()), "o", 8, 6, transposed=transposed)
        load_tensors(layer, [("o.weight", weight.t().contiguous() if transposed else weight)], NameRules())
        torch.testing.assert_close(weight_of(layer), rounded(weight.float()))
    layer = ReplicatedLinear(context(quantizer=Online()), "o", 8, 6)
    with pytest.raises(ModelFileError, match=r"'o.weight' has shape \[8, 6\]"):
        load_tensors(layer, [("o.weight", weight.t())], NameRules())


@pytest.mark.parametrize("rank", [0, 1])
def test_shards_are_cut_before_they_are_quantized(rank):
    weight = torch.randn(6, 16)
    layer = RowParallelLinear(context(rank, 2, quantizer=Online()), "o", 16, 6)
    load_tensors(layer, [("o.weight", weight)], NameRules())
    torch.testing.assert_close(weight_of(layer), rounded(weight.chunk(2, 1)[rank].contiguous()))


def test_experts_in_one_tensor_are_quantized_one_by_one():
    names = ExpertNames("gate_proj", "up_proj", "down_proj")
    mlp = SparseMLP(context(quantizer=Online()), "mlp", names, hidden=8, inner=6, experts=3, top_k=1, act="silu", renormalize=True)
    gate_up, down, router = torch.randn(3, 12, 8), torch.randn(3, 8, 6), torch.randn(3, 8)
    tensors = {"mlp.experts.gate_up_proj": gate_up, "mlp.experts.down_proj": down, "mlp.gate.weight": router}
    assert load_tensors(mlp, tensors.items(), NameRules(), expected=set(tensors)) == set()
    for number in range(3):
        torch.testing.assert_close(weight_of(mlp.gate_up[number]), rounded(gate_up[number]))
        torch.testing.assert_close(weight_of(mlp.down[number]), rounded(down[number]))
    assert torch.equal(weight_of(mlp.router), router)


def test_experts_that_the_checkpoint_quantized_have_no_fused_slot():
    names = ExpertNames("gate_proj", "up_proj", "down_proj")
    mlp = SparseMLP(context(quantizer=Toy()), "mlp", names, hidden=8, inner=8, experts=2, top_k=1, act="silu", renormalize=True)
    assert list(mlp.fused.slots()) == []


class Mixed(Quantizer):
    def linear(self, layer):
        return PartFormats((None, Rounded(), None))


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (0, 2), (1, 2)])
def test_parts_kept_in_different_ways_are_joined(rank, size):
    weights = {"q": torch.randn(16, 8), "k": torch.randn(8, 8), "v": torch.randn(8, 8)}
    layer = QKVParallelLinear(context(rank, size, quantizer=Mixed()), "qkv", tuple(weights), 8, num_heads=4, num_kv_heads=2, head_dim=4)
    packed = []
    layer.context = dataclasses.replace(layer.context, kernel=lambda p: packed.append(p) or reference_kernel(p))
    assert not load_tensors(layer, [(f"{name}.weight", weight) for name, weight in weights.items()], NameRules())
    shards = [weight.chunk(size)[rank] for weight in weights.values()]
    assert isinstance(packed[0], Joined) and [part.layout for part in packed[0].parts] == ["dense", "grouped_int", "dense"]
    torch.testing.assert_close(weight_of(layer), torch.cat([shards[0], rounded(shards[1]), shards[2]]))


def test_what_does_not_fit_together_names_the_layer():
    class Broken(Rounded):
        def pack(self, layer, tensors, dtype):
            return GroupedInteger.of(torch.zeros(2, 8), torch.ones(3, 1), bits=8, group=8)

    class Quantizes(Quantizer):
        def linear(self, layer):
            return Broken()

    layer = MergedColumnParallelLinear(context(quantizer=Quantizes()), "gate_up", ("gate", "up"), 8, (4, 4))
    with pytest.raises(ModelFileError, match=r"'gate_up' \('gate', 'up'\) cannot be packed: scale is"):
        load_tensors(layer, [("gate.weight", torch.ones(4, 8)), ("up.weight", torch.ones(4, 8))], NameRules())


@pytest.mark.parametrize("scale", [None, 3.0])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("rank", "size"), [(0, 1), (1, 3)])
def test_quantized_embeddings_stay_packed(tied, scale, rank, size):
    weight = torch.randn(10, 8)
    place = context(rank, size, quantizer=Online())
    embedding = VocabParallelEmbedding(place, "embed", 10, 8, scale=scale)
    assert embedding.weight is None
    load_tensors(embedding, [("embed.weight", weight)], NameRules())
    if tied:
        head = LMHead(place, "lm_head", 8, 10, tied=embedding)
        head.finish_once()
    rows = rounded(weight)
    wanted = torch.zeros(10, 8)
    mine = range(4, 8) if size == 3 else range(10)
    wanted[mine] = rows[mine] * (scale or 1)
    torch.testing.assert_close(embedding(torch.arange(10)), wanted)
    if tied:
        torch.testing.assert_close(head.multiply(torch.eye(8), None, None), rows[mine].t())


#: 24 layers of 16 MiB as float32, made when they are asked for; 4 MiB each when quantized.
LOADING = """
import sys
import torch
from torch import nn
from engine.layers.linear import ReplicatedLinear
from engine.layers.loading import NameRules, load_tensors
from tests.core.layers.test_arrivals import Online
from tests.core.layers.harness import context
torch.set_num_threads(1)
size = 2048
root = nn.ModuleList([ReplicatedLinear(context(quantizer=Online()), str(n), size, size) for n in range(24)])
ReplicatedLinear(context(quantizer=Online()), "warm", size, size)
def peak():
    # ru_maxrss begins with the parent's.
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
def tensors(count):
    for n in range(count):
        yield f"{n}.weight", torch.full((size, size), float(n))
before = peak()
load_tensors(root, tensors(24), NameRules(), threads=int(sys.argv[1]), expected={f"{n}.weight" for n in range(24)})
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("threads", [1, 4])
def test_loading_holds_the_packed_weights_and_few_raw_ones(threads):
    """Raw tensors are 24 · 16 MiB in all; packed ones 24 · 4 MiB. Beside them: the largest tensor, and 300 MB for what packing makes."""
    done = subprocess.run([sys.executable, "-c", LOADING, str(threads)], capture_output=True, text=True, check=True)
    raw, packed = 16 << 20, 24 * (4 << 20)
    assert packed * 0.9 < int(done.stdout) < packed + raw + 300_000_000


def test_dense_layers_are_exclusive():
    layer, kernels = ReplicatedLinear(context(), "o", 4, 4), []
    layer.context = dataclasses.replace(layer.context, kernel=lambda p: kernels.append(p) or reference_kernel(p))
    load_tensors(layer, [("o.weight", torch.eye(4))], NameRules())
    assert isinstance(kernels[0], DensePacked) and kernels[0].exclusive
