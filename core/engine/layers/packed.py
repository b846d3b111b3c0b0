"""The dense packed weight, and the reference kernel that every device kernel is tested against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.plugin.contracts.packed import LinearKernel, PackedWeight


class DensePacked(PackedWeight):
    """A plain weight: ``weight`` [outputs, inputs] in the dtype of activations, on the device.

    ``exclusive``: nobody else reads ``weight``, so that a kernel which keeps a copy in another order may give its memory
    back (``release``).
    """

    layout = "dense"

    def __init__(self, weight: Tensor, *, exclusive: bool = False) -> None:
        self.weight = weight
        self.exclusive = exclusive
        self.outputs, self.inputs = weight.shape

    def release(self) -> None:
        """Give the weight's memory back; the tensor, and views of it, can no longer be read."""
        self.weight.untyped_storage().resize_(0)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight itself where it has that dtype already."""
        return self.weight.to(dtype)

    def nbytes(self) -> int:
        """Bytes of the weight."""
        return self.weight.numel() * self.weight.element_size()


class ReferenceKernel(LinearKernel):
    """Dequantize, then multiply: right for every layout, fast for dense alone."""

    def __init__(self, packed: PackedWeight) -> None:
        self.packed = packed

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[rows, inputs] → [rows, outputs], in x's dtype."""
        return functional.linear(x, self.packed.dequantize(x.dtype), bias)


def reference_kernel(packed: PackedWeight) -> LinearKernel:
    """The kernel for a layout that the device has none for."""
    return ReferenceKernel(packed)
