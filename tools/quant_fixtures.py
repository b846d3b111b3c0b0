"""Makes tests/quant/data with the libraries that define the formats; needs them installed, so not part of a test run.

HQQ: ``pip install hqq==0.2.8.post1`` (with --no-build-isolation, beside torch), then ``python -m tools.quant_fixtures``.
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


if __name__ == "__main__":
    make_hqq()
