"""On a real GPU: the device, and decode steps recorded once and replayed with other lengths, pages and tokens."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.attention import built_in
from engine_devices import cuda
from tests.core.attention.attention_cases import Case, make

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_device():
    device = cuda.engine_create_device(0)
    memory = device.memory()
    assert 0 < memory.free <= memory.total
    assert device.collective_backend() == "nccl"
    device.synchronize()
    device.close()


def test_a_recorded_decode_step_equals_the_plain_one():
    device, backend = cuda.engine_create_device(0), built_in("cuda")
    recorder = device.recorder()
    first = Case(((1, 5), (1, 40), (1, 0), (1, 90)), heads=8, kv_heads=2, head_dim=64, dtype="bfloat16")
    fixed = make(first, backend, host=False).to("cuda")
    fixed.batch = dataclasses.replace(fixed.batch, max_seq_len=2048, block_table=torch.zeros_like(fixed.batch.block_table))
    fixed.cache = backend.allocate(first.spec, 64, first.block_size, torch.bfloat16, device.torch_device())

    def body():
        return (backend.attend(fixed.q, fixed.k, fixed.v, fixed.cache, fixed.batch, first.spec),)

    replay = recorder.record(body)
    for seed, lengths in enumerate(((5, 40, 0, 90), (80, 1, 17, 33), (0, 0, 0, 1)), start=7):
        case = dataclasses.replace(first, work=tuple((1, length) for length in lengths), seed=seed)
        other = make(case, backend).to("cuda")
        fixed.cache[: other.cache.shape[0]] = other.cache
        fixed.batch.block_table[:, : other.batch.block_table.shape[1]] = other.batch.block_table
        for name in ("q", "k", "v"):
            getattr(fixed, name).copy_(getattr(other, name))
        fixed.batch.seq_lens.copy_(other.batch.seq_lens)
        fixed.batch.slots.copy_(other.batch.slots)
        expected = backend.attend(other.q, other.k, other.v, other.cache, other.batch, case.spec)
        assert torch.equal(replay.run()[0], expected)


def test_graphs_of_several_sizes_share_a_pool():
    recorder = cuda.engine_create_device(0).recorder()
    x = torch.zeros(64, 256, device="cuda")
    weight = torch.randn(256, 256, device="cuda")
    replays = {rows: recorder.record(lambda rows=rows: (torch.relu(x[:rows] @ weight),)) for rows in (64, 8, 1)}
    for rows, replay in replays.items():
        x.normal_()
        assert torch.equal(replay.run()[0], torch.relu(x[:rows] @ weight))
