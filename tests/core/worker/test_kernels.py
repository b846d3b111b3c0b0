"""Which layout gets which kernel, and what is said of it."""

from __future__ import annotations

import torch

from engine.layers.packed import DensePacked, ReferenceKernel
from engine.layers.packed_quantized import ActivationRounding, GroupedInteger, Joined, RoundedInputs
from engine.worker.kernels import Kernels


class Own(ReferenceKernel):
    """A device's kernel."""


class Machine:
    name = "machine"

    def linear_kernel(self, packed):
        return Own(packed) if isinstance(packed, DensePacked) or getattr(packed, "bits", 0) == 4 else None


def test_kernels_are_counted_by_layout():
    kernels = Kernels(Machine())
    weight = torch.randn(4, 64)
    four, three = (GroupedInteger.quantize(weight, bits=bits, group=32) for bits in (4, 3))
    assert isinstance(kernels(DensePacked(weight)), Own)
    assert isinstance(kernels(four), Own)
    assert type(kernels(three)) is ReferenceKernel
    x = torch.randn(2, 64)
    made = kernels(Joined([RoundedInputs(four, ActivationRounding("int8")), three]))
    rounded = ActivationRounding("int8").round(x)
    wanted = torch.cat([rounded @ four.dequantize(torch.float32).T, x @ three.dequantize(torch.float32).T], -1)
    torch.testing.assert_close(made.apply(x, None), wanted, rtol=1e-5, atol=1e-5)
    assert kernels.without() == {"grouped_int (3 bits, groups of 32)": 2}
    assert kernels.describe() == {
        "layout dense": "1 layers: a kernel of the device",
        "layout grouped_int (3 bits, groups of 32)": "2 layers: dequantized in slices at each product, the device has no kernel for it",
        "layout grouped_int (4 bits, groups of 32)": "2 layers: a kernel of the device",
    }
