"""Checkpoint tensors find their layers: dense and quantized, fused and split, whole and sharded."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
import torch
from torch import nn

from engine.attention import built_in
from engine.errors import ConfigError, ModelFileError
from engine.layers.embedding import LMHead, VocabParallelEmbedding
from engine.layers.linear import (
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from engine.layers.loading import CheckpointLayer, NameRules, Slot, collect_slots, load_tensors
from engine.layers.packed import DensePacked, reference_kernel
from engine.layers.packed_parts import pieces_of
from engine.plugin import CheckpointTensor, ModelContext, ModelInfo, PackedWeight, Parallel, Quantizer, WeightFormat

DTYPE = torch.float32


class Place(Parallel):
    """A rank whose collectives are not called."""

    def __init__(self, rank=0, size=1):
        self.rank, self.size = rank, size

    def all_reduce(self, x):
        return x

    def all_gather(self, x, dim=-1):
        raise AssertionError("not expected here")


def context(rank=0, size=1, **changes):
    info = ModelInfo("Test", 10, 8, (), 64)
    made = ModelContext(
        info=info, config={}, dtype=DTYPE, device=torch.device("cpu"), parallel=Place(rank, size),
        attention=built_in("cpu"), kernel=reference_kernel,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def fill(layer, tensors):
    missing = load_tensors(layer, tensors.items(), NameRules())
    layer.finish_once()
    return missing


def weight_of(layer):
    """The dense weight that a layer multiplies by."""
    return layer(torch.eye(layer.inputs.size)).t()


@pytest.mark.parametrize("rank", [0, 1])
def test_fused_parts_are_cut_per_part(rank):
    q, k, v = torch.randn(16, 8), torch.randn(8, 8), torch.randn(8, 8)
    layer = QKVParallelLinear(context(rank, 2), "a.qkv", ("a.q", "a.k", "a.v"), 8, num_heads=4, num_kv_heads=2, head_dim=4)
    assert not fill(layer, {"a.q.weight": q, "a.k.weight": k, "a.v.weight": v})
    rows = [q[8 * rank : 8 * rank + 8], k[4 * rank : 4 * rank + 4], v[4 * rank : 4 * rank + 4]]
    assert torch.equal(weight_of(layer), torch.cat(rows))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_part_fused_on_disk_is_cut_by_section(rank):
    whole, bias = torch.randn(32, 8), torch.randn(32)
    layer = QKVParallelLinear(context(rank, 2), "a.qkv", (), 8, num_heads=4, num_kv_heads=2, head_dim=4, bias=True)
    assert not fill(layer, {"a.qkv.weight": whole, "a.qkv.bias": bias})
    rows = [*range(8 * rank, 8 * rank + 8), *range(16 + 4 * rank, 20 + 4 * rank), *range(24 + 4 * rank, 28 + 4 * rank)]
    assert torch.equal(weight_of_biased(layer), whole[rows])
    assert torch.equal(layer(torch.zeros(1, 8))[0], bias[rows])


def weight_of_biased(layer):
    return layer.multiply(torch.eye(layer.inputs.size), None, None).t()


def test_kv_heads_are_replicated_where_there_are_fewer_than_ranks():
    k = torch.randn(8, 8)
    tensors = {"q.weight": torch.randn(16, 8), "k.weight": k, "v.weight": torch.randn(8, 8)}
    for rank, head in enumerate((0, 0, 1, 1)):
        layer = QKVParallelLinear(context(rank, 4), "qkv", ("q", "k", "v"), 8, num_heads=4, num_kv_heads=2, head_dim=4)
        fill(layer, tensors)
        assert torch.equal(weight_of(layer)[4:8], k[4 * head : 4 * head + 4])


def test_dense_parts_become_one_weight_unless_the_kernel_takes_them_apart():
    for takes in (False, True):
        layer = MergedColumnParallelLinear(context(), "gate_up", ("gate", "up"), 8, (4, 4))
        seen = []

        def kernel(packed, takes=takes, seen=seen):
            seen.append((packed, [piece.data_ptr() for piece in pieces_of(packed)]))
            if takes:
                packed.release()
            return reference_kernel(packed)

        layer.context = dataclasses.replace(layer.context, kernel=kernel)
        gate, up = torch.zeros(4, 8), torch.ones(4, 8)
        load_tensors(layer, [("up.weight", up), ("gate.weight", gate)], NameRules())
        ((packed, addresses),) = seen
        assert isinstance(packed, DensePacked)
        assert addresses == [gate.data_ptr(), up.data_ptr()]
        assert packed.pieces == ()
        if not takes:
            assert torch.equal(packed.weight, torch.cat([gate, up]))
            assert packed.weight.data_ptr() != gate.data_ptr()


def test_bias_of_a_row_parallel_layer_is_added_once():
    x, weight, bias = torch.randn(3, 8), torch.randn(5, 8), torch.randn(5)
    parts = []
    for rank in range(2):
        layer = RowParallelLinear(context(rank, 2), "o", 8, 5, bias=True)
        fill(layer, {"o.weight": weight, "o.bias": bias})
        parts.append(layer(x[:, 4 * rank : 4 * rank + 4]))
    torch.testing.assert_close(sum(parts), nn.functional.linear(x, weight, bias))


def test_a_lora_term_is_added_to_the_output():
    layer = ReplicatedLinear(context(), "o", 8, 5)
    fill(layer, {"o.weight": torch.zeros(5, 8)})
    layer.adapter = lambda x, adapters: torch.full((len(x), 5), adapters)
    assert torch.equal(layer(torch.ones(2, 8), 3.0), torch.full((2, 5), 3.0))
    assert torch.equal(layer(torch.ones(2, 8)), torch.zeros(2, 5))


def test_missing_tensors_are_returned():
    layer = MergedColumnParallelLinear(context(), "gate_up", ("gate", "up"), 8, (4, 4), bias=True)
    tensors = {"up.weight": torch.ones(4, 8), "gate.bias": torch.ones(4)}
    assert load_tensors(layer, tensors.items(), NameRules()) == {"gate.weight", "up.bias"}


def test_unknown_tensors_name_the_nearest():
    layer = ReplicatedLinear(context(), "model.down_proj", 8, 5)
    with pytest.raises(ModelFileError, match=r"'model.down_porj.weight' .* nearest known tensor is 'model.down_proj.weight'"):
        load_tensors(layer, [("model.down_porj.weight", torch.zeros(5, 8))], NameRules())


def test_wrong_shapes_name_tensor_expected_and_actual():
    layer = ReplicatedLinear(context(), "down", 8, 5)
    with pytest.raises(ModelFileError, match=r"'down.weight' has shape \[8, 5\], .* asks for \[5, 8\]"):
        load_tensors(layer, [("down.weight", torch.zeros(8, 5))], NameRules())


def test_integers_are_no_weights_of_an_unquantized_layer():
    layer = ReplicatedLinear(context(), "down", 8, 5)
    with pytest.raises(ModelFileError, match=r"'down.weight' holds int16 numbers"):
        load_tensors(layer, [("down.weight", torch.zeros(5, 8, dtype=torch.int16))], NameRules())


def test_two_layers_cannot_want_one_tensor():
    pair = nn.ModuleList(ReplicatedLinear(context(), "same", 8, 5) for _ in range(2))
    with pytest.raises(ValueError, match=r"same\.weight"):
        collect_slots(pair)


def test_rules_rename_prefix_and_leave_over():
    slot = Slot("model.a.weight", (1,), lambda tensor: None)
    rules = NameRules("model.", ((r"^old\.", ""),), (r".*\.inv_freq",), ("model.layers.3.",))
    table = {slot.name: slot}
    assert rules.resolve("a.weight", table) is slot
    assert rules.resolve("old.a.weight", table) is slot
    assert rules.resolve("model.rotary.inv_freq", table) is None
    assert rules.resolve("layers.3.b.weight", table) is None
    with pytest.raises(ModelFileError):
        rules.resolve("layers.33.b.weight", table)


def test_fused_spelling_fills_the_split_one():
    split = Slot("e.0.w", (1,), lambda tensor: None)
    fused = Slot("e.w", (1,), lambda tensor: None, optional=True, fills=("e.0.w",))

    class Both(ReplicatedLinear):
        def slots(self):
            return split, fused

        def finish(self):
            """The slots above take nothing."""

    layer = Both(context(), "x", 1, 1)
    assert load_tensors(layer, [("e.w", torch.zeros(1))], NameRules()) == set()
    assert load_tensors(layer, [], NameRules()) == {"e.0.w"}


@pytest.mark.parametrize("rank", range(3))
def test_vocabulary_is_padded_over_ranks(rank):
    weight = torch.randn(10, 8)
    embedding = VocabParallelEmbedding(context(rank, 3), "embed", 10, 8)
    load_tensors(embedding, [("embed.weight", weight)], NameRules())
    mine = range(4 * rank, min(4 * rank + 4, 10))
    out = embedding(torch.arange(10))
    for token in range(10):
        assert torch.equal(out[token], weight[token] if token in mine else torch.zeros(8))


def test_a_tied_head_shares_the_weight_and_takes_no_tensor():
    embedding = VocabParallelEmbedding(context(), "embed", 10, 8)
    head = LMHead(context(), "lm_head", 8, 10, tied=embedding)
    assert not list(head.slots())
    load_tensors(embedding, [("embed.weight", torch.eye(10, 8))], NameRules())
    head.finish()
    assert torch.equal(head(torch.eye(8)), torch.eye(8, 10))


class Halves(WeightFormat):
    """A toy format: codes int8 [inputs, outputs / 2] · scales [inputs / 4, outputs] + one number per layer."""

    def tensors(self):
        return (
            CheckpointTensor("codes", output_axis=1, input_axis=0, output_group=2),
            CheckpointTensor("scales", output_axis=1, input_axis=0, input_group=4),
            CheckpointTensor("zero"),
            CheckpointTensor("order", optional=True, input_axis=0),
        )

    def pack(self, layer, tensors, dtype):
        return Pairs(layer, dict(tensors))


class Pairs(PackedWeight):
    layout = "pairs"

    def __init__(self, layer, tensors):
        self.layer, self.tensors = layer, tensors
        self.outputs, self.inputs = layer.outputs, layer.inputs

    def take(self, which, dtype):
        codes = self.tensors["codes"].repeat_interleave(2, 1).to(dtype)
        return (codes * self.tensors["scales"].repeat_interleave(4, 0)).t()[which]

    def nbytes(self):
        return 0


class Toy(Quantizer):
    def linear(self, layer):
        return None if layer.name == "plain" else Halves()

    def kv_scale_suffixes(self):
        return {".k_scale": "k_scale"}


def quantized(sizes, inputs):
    return {
        name: {
            "codes": torch.randint(-8, 8, (inputs, size // 2), dtype=torch.int8),
            "scales": torch.rand(inputs // 4, size),
            "zero": torch.tensor(float(index)),
        }
        for index, (name, size) in enumerate(sizes.items())
    }


def dense(entry):
    return (entry["codes"].repeat_interleave(2, 1).float() * entry["scales"].repeat_interleave(4, 0)).t()


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


def test_several_threads_take_tensors():
    layer = CheckpointLayer()
    weights = torch.randn(4, 5)
    threads: set[int] = set()
    held: list[int] = []
    running = 0
    lock = threading.Lock()

    def slot(number):
        def take(tensor):
            nonlocal running
            with lock:
                running += 1
                threads.add(threading.get_ident())
                held.append(running)
            time.sleep(0.05)
            weights[number] = tensor
            with lock:
                running -= 1

        return Slot(f"{number}", (5,), take)

    slots = [slot(number) for number in range(4)]
    layer.slots = lambda: slots
    assert load_tensors(layer, [(str(number), torch.full((5,), float(number))) for number in range(3)], NameRules(), threads=2) == {"3"}
    assert weights[:3].tolist() == [[0.0] * 5, [1.0] * 5, [2.0] * 5]
    assert len(threads) == 2 and max(held) == 2


def test_a_thread_s_failure_is_the_load_s():
    layer = CheckpointLayer()

    def take(_):
        raise ModelFileError("broken")

    layer.slots = lambda: [Slot("a", (1,), take), *(Slot(f"{i}", (1,), lambda _: None) for i in range(9))]
    with pytest.raises(ModelFileError, match="broken"):
        load_tensors(layer, [("a", torch.zeros(1))], NameRules(), threads=4)
    with pytest.raises(ModelFileError, match="broken"):
        load_tensors(layer, [("a", torch.zeros(1)), *((f"{i}", torch.zeros(1)) for i in range(9))], NameRules(), threads=2)
