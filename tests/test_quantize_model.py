"""The rounding of the benchmarks' checkpoints: what is packed unpacks to the nearest multiples of the scales."""

from __future__ import annotations

import pytest
import torch

from benchmarks.quantize_model import rounded


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 0), (8, 0), (8, 64)])
def test_words_hold_the_nearest_multiples(bits, group):
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    parts = rounded(weight, bits, group)
    assert parts["weight_shape"].tolist() == [6, 128]
    words = parts["weight_packed"].to(torch.int64) & 0xFFFFFFFF
    assert words.shape == (6, 128 * bits // 32)
    values = torch.stack([words >> (bits * place) & (2**bits - 1) for place in range(32 // bits)], dim=2).view(6, 128) - 2 ** (bits - 1)
    scale = parts["weight_scale"].float().repeat_interleave(group or 128, 1)
    # Half a step, and what the largest value lost when its scale was rounded to bfloat16.
    assert ((values * scale - weight.float()).abs() <= scale * (0.5 + 2**bits / 2**9)).all()
    assert values.abs().max() >= 2 ** (bits - 1) - 2
