"""Rows of quantized weights, as embeddings take them, against the canonical layouts' own."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed_quantized import Codebook, GroupedInteger, ScaledFloat8
from engine_devices._composite import linear_kernel

OUTPUTS, INPUTS = 70, 130
IDS = torch.tensor([0, 69, 31, 32, 33, 5, 5])


def weights():
    make = torch.Generator().manual_seed(0)
    dense = torch.randn(OUTPUTS, INPUTS, generator=make)
    for bits in (1, 2, 3, 4, 5, 6, 7, 8):
        for group in (16, 64, 0) if bits > 1 else ():
            yield GroupedInteger.quantize(dense, bits=bits, group=group, asymmetric=group == 64)
    yield GroupedInteger.of(-(dense > 0).int(), torch.rand(OUTPUTS, 5), torch.rand(OUTPUTS, 5), bits=1, group=32)
    for bits in (4, 8):
        codes = torch.randint(0, 1 << bits, (OUTPUTS, INPUTS), generator=make)
        for outer in (None, torch.rand(OUTPUTS)):
            yield Codebook.of(codes, torch.randn(1 << bits), torch.rand(OUTPUTS, 9).half(), bits=bits, group=16, outer=outer)
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        values = torch.arange(OUTPUTS * INPUTS).to(torch.uint8).view(kind).view(OUTPUTS, INPUTS)
        yield ScaledFloat8(values, torch.ones(1, 1), rows=OUTPUTS, columns=INPUTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_those_of_the_layout(native, dtype):
    for packed in weights():
        kernel = linear_kernel(native, packed)
        assert kernel is not None
        assert kernel.gathers
        wanted = packed.take(IDS, dtype)
        limit = {torch.float32: 1e-6, torch.bfloat16: 0.008, torch.float16: 0.001}[dtype]
        for scale in (None, 11.3125):
            rows = kernel.gather(IDS, scale, dtype)
            exact = wanted if scale is None else wanted * torch.tensor(scale, dtype=dtype)
            same = (rows == exact) | (rows.isnan() & exact.isnan())
            near = (rows.float() - exact.float()).abs() <= limit * (exact.float().abs() + 1)
            assert (same | near).all(), (packed.layout, getattr(packed, "bits", None))
            assert rows.dtype == dtype


def test_ids_outside_are_zeros_and_none_are_none(native):
    kernel = linear_kernel(native, GroupedInteger.quantize(torch.randn(40, 64), bits=4, group=32))
    assert not kernel.gather(torch.tensor([-1, 40]), None, torch.float32).any()
    assert kernel.gather(torch.tensor([], dtype=torch.int64), None, torch.float32).shape == (0, 64)
