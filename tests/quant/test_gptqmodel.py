"""Layers that GPTQModel packed: its own dequantization, with GPTQ's bits and act-order, and QQQ's two layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.plugin import LinearShape
from engine_quant._gptq import GPTQ
from engine_quant._tiled import QQQFormat

FIXTURES = load_file(Path(__file__).parent / "data" / "gptqmodel.safetensors")
GPTQ_NAMES = sorted({name.rpartition(".")[0] for name in FIXTURES if not name.startswith("qqq")})


def of(name):
    """A layer's tensors by suffix, and its dense weight."""
    tensors = {key.removeprefix(f"{name}."): tensor for key, tensor in FIXTURES.items() if key.startswith(f"{name}.")}
    return tensors, tensors.pop("dense").float()


@pytest.mark.parametrize("name", GPTQ_NAMES)
def test_gptq(name):
    bits, act_order = map(int, name.split("."))
    tensors, dense = of(name)
    shape = LinearShape("model.layers.0.mlp.down_proj", dense.shape[1], len(dense))
    config = {"bits": bits, "group_size": 32, "desc_act": bool(act_order), "sym": False, "checkpoint_format": "gptq_v2"}
    packed = GPTQ(config).linear(shape).pack(shape, tensors, torch.float32)
    # The library dequantizes in float16.
    torch.testing.assert_close(packed.dequantize(torch.float32), dense, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("group", [-1, 128])
def test_qqq(group):
    tensors, dense = of(f"qqq.{group}")
    shape = LinearShape("model.layers.0.mlp.down_proj", dense.shape[1], len(dense))
    packed = QQQFormat(group, shape).pack(shape, tensors, torch.float32)
    torch.testing.assert_close(packed.dequantize(torch.float32), dense, rtol=1e-3, atol=1e-6)
