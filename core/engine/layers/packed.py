"""The dense packed weight, and the reference kernel that every device kernel is tested against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.plugin.contracts.packed import LinearKernel, LinearWork, PackedWeight

#: Elements that the reference kernel dequantizes at a time: what it needs beside a packed weight.
_AT_ONCE = 4 << 20


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

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Those rows."""
        return self.weight[which].to(dtype)

    def nbytes(self) -> int:
        """Bytes of the weight."""
        return self.weight.numel() * self.weight.element_size()


class ReferenceKernel(LinearKernel):
    """Dequantize some outputs at a time, then multiply: right for every layout, fast for dense alone.

    No dense copy is kept, and none is made of the whole weight.
    """

    def __init__(self, packed: PackedWeight) -> None:
        self.packed = packed
        self.at_once = max(1, _AT_ONCE // max(packed.inputs, 1))

    def work(self, dtype: str) -> tuple[LinearWork, ...]:
        """The packed weight is read; it is multiplied in the dtype of the activations."""
        return (LinearWork(self.packed.outputs * self.packed.inputs, self.packed.nbytes(), dtype),)

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype."""
        packed = self.packed
        if isinstance(packed, DensePacked) or packed.outputs <= self.at_once:
            return functional.linear(x, packed.dequantize(x.dtype), bias)
        out = torch.empty((*x.shape[:-1], packed.outputs), dtype=x.dtype, device=x.device)
        for start in range(0, packed.outputs, self.at_once):
            rows = slice(start, min(start + self.at_once, packed.outputs))
            out[..., rows] = functional.linear(x, packed.take(rows, x.dtype), None if bias is None else bias[rows])
        return out


def reference_kernel(packed: PackedWeight) -> LinearKernel:
    """The kernel for a layout that the device has none for."""
    return ReferenceKernel(packed)
