"""Checkpoint tensors find their layers: fused and split, whole and sharded."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
import torch
from torch import nn

from engine.errors import ModelFileError
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
from tests.core.layers.harness import context, fill, weight_of


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
