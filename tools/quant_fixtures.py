"""Makes tests/quant/data with the libraries that define the formats; needs them installed, so not part of a test run.

``pip install hqq==0.2.8.post1 gptqmodel==7.6.0`` (with --no-build-isolation, beside torch), then ``python -m tools.quant_fixtures``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

DATA = Path(__file__).resolve().parent.parent / "tests" / "quant" / "data"
#: bits, group, outputs, inputs, whether W_q is stored under a float dtype.
HQQ = (
    (8, 64, 8, 128, False), (6, 32, 8, 64, False), (4, 64, 16, 128, False), (4, 32, 8, 64, True), (3, 32, 8, 96, False),
    (2, 16, 8, 64, False), (1, 16, 8, 32, False),
)  # fmt: skip


def make_hqq() -> None:
    """One linear layer of each packing: its state and its own dequantized weight."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    torch.manual_seed(5)
    found: dict[str, torch.Tensor] = {}
    for bits, group, outputs, inputs, floats in HQQ:
        layer = torch.nn.Linear(inputs, outputs, bias=False)
        config = BaseQuantizeConfig(nbits=bits, group_size=group, axis=1, view_as_float=floats)
        made = HQQLinear(layer, config, compute_dtype=torch.float32, device="cpu", initialize=True)
        name = f"{bits}.{group}.{outputs}.{inputs}.{int(floats)}"
        state = made.state_dict()
        for suffix in ("W_q", "scale", "zero"):
            found[f"{name}.{suffix}"] = state[suffix].contiguous()
        found[f"{name}.dense"] = made.dequantize().float().contiguous()
    DATA.mkdir(parents=True, exist_ok=True)
    save_file(found, DATA / "hqq.safetensors")


#: bits, act-order.
GPTQ = ((2, False), (3, False), (3, True), (4, False), (4, True), (8, True))


def make_gptq() -> None:
    """One layer of each kind, packed and dequantized by GPTQModel in its own (gptq_v2) convention, and QQQ's two layouts."""
    from gptqmodel.nn_modules.qlinear.qqq import QQQTorchLinear
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    torch.manual_seed(6)
    found: dict[str, torch.Tensor] = {}
    outputs, inputs, group = 32, 96, 32
    for bits, act_order in GPTQ:
        layer = torch.nn.Linear(inputs, outputs, bias=False)
        index = torch.arange(inputs, dtype=torch.int32) // group
        index = index[torch.randperm(inputs)] if act_order else index
        top = 2**bits - 1
        scale = torch.rand(outputs, inputs // group) * 0.02 + 2 * 0.11 / top
        zero = torch.randint(1, top + 1, scale.shape).float()
        made = TorchLinear(bits=bits, group_size=group, sym=False, desc_act=act_order, in_features=inputs, out_features=outputs)
        made.pack(layer, scale.half().float(), zero, index)
        made.eval()
        name = f"{bits}.{int(act_order)}"
        for suffix in ("qweight", "qzeros", "scales", "g_idx"):
            found[f"{name}.{suffix}"] = getattr(made, suffix).contiguous()
        found[f"{name}.dense"] = TorchLinear.dequantize_weight(made).reshape(inputs, outputs).float().t().contiguous()
    for group in (-1, 128):
        found |= _qqq(QQQTorchLinear, group)
    save_file(found, DATA / "gptqmodel.safetensors")


def _qqq(kind: type, group: int) -> dict[str, torch.Tensor]:
    outputs, inputs = 64, 256
    layer = torch.nn.Linear(inputs, outputs, bias=False)
    made = kind(bits=4, group_size=group, desc_act=False, sym=True, in_features=inputs, out_features=outputs)
    weight = layer.weight.data
    if group < 0:
        scale, channel = weight.abs().amax(1, keepdim=True) / 7, None
        layer.weight.data = ((weight / scale).round().clamp(-8, 7) * scale).half()
    else:
        channel = weight.abs().amax(1, keepdim=True) / 127
        scale = weight.view(outputs, -1, group).abs().amax(-1) / 7
        each = scale.repeat_interleave(group, 1)
        layer.weight.data = ((weight / each).round().clamp(-8, 7) * each).half()
    made.pack(layer, scale, channel)
    integers, channels = made._dequantize_weight_for_torch()
    name = f"qqq.{group}"
    dense = integers.float() * channels.float()
    found = {f"{name}.B": made.B, f"{name}.s_channel": made.s_channel, f"{name}.dense": dense.t().half()}
    if group > 0:
        found[f"{name}.s_group"] = made.s_group
    return {key: value.detach().clone().contiguous() for key, value in found.items()}


if __name__ == "__main__":
    make_hqq()
    make_gptq()
