"""Packed weights made of packed weights: reordered inputs, stacked outputs, multiplied or rounded activations; and their kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from engine.layers.rounding import ActivationRounding
from engine.plugin.contracts.packed import LinearKernel, PackedWeight


class Permuted(PackedWeight):
    """Column j of ``inner`` is column ``order[j]`` of the weight (act-order).

    ``order``: int64 [inner.inputs] names each of the weight's ``inputs`` once. Further entries are -1: columns that fill up a group and
    meet activations of 0.
    """

    layout = "permuted"

    def __init__(self, inner: PackedWeight, order: Tensor) -> None:
        if order.dtype != torch.int64 or list(order.shape) != [inner.inputs]:
            raise ValueError(f"order is {order.dtype} {list(order.shape)}; torch.int64 [{inner.inputs}] is needed")
        named = order[order >= 0]
        if not torch.equal(named.sort().values, torch.arange(len(named), device=order.device)):
            raise ValueError("order names an input twice or not at all")
        self.inner, self.order = inner, order
        self.outputs, self.inputs = inner.outputs, len(named)

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of the inner weight, their columns put back in place."""
        inner = self.inner.take(which, dtype)
        named = self.order >= 0
        if self.inputs < self.inner.inputs:
            inner = inner[:, named]
        return torch.empty_like(inner).index_copy_(1, self.order[named], inner)

    def nbytes(self) -> int:
        """Bytes of the inner weight and the order."""
        return self.inner.nbytes() + self.order.nbytes


class Joined(PackedWeight):
    """Packed weights of the same inputs, stacked along the outputs: a fused layer whose parts are kept in different ways."""

    layout = "joined"

    def __init__(self, parts: Sequence[PackedWeight]) -> None:
        if not parts or len({part.inputs for part in parts}) != 1:
            raise ValueError(f"parts have {[part.inputs for part in parts]} inputs; at least one part, all with the same inputs, is needed")
        self.parts = tuple(parts)
        self.outputs, self.inputs = sum(part.outputs for part in parts), parts[0].inputs

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of each part that has some of those asked for."""
        found: list[Tensor] = []
        start = 0
        if isinstance(which, slice):
            first, last, step = which.indices(self.outputs)
            if step != 1:
                raise ValueError(f"which is {which}; slices have no step")
            for part in self.parts:
                low, high = max(first - start, 0), min(last - start, part.outputs)
                if low < high:
                    found.append(part.take(slice(low, high), dtype))
                start += part.outputs
            return torch.cat(found) if found else torch.empty((0, self.inputs), dtype=dtype)
        out = torch.empty((len(which), self.inputs), dtype=dtype, device=which.device)
        for part in self.parts:
            places = ((which >= start) & (which < start + part.outputs)).nonzero().flatten()
            if len(places):
                out[places] = part.take(which[places] - start, dtype)
            start += part.outputs
        return out

    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes() for part in self.parts)


class RoundedInputs(PackedWeight):
    """The product rounds its activations first, as the format defines; the weight itself is ``inner``."""

    layout = "rounded_inputs"

    def __init__(self, inner: PackedWeight, rounding: ActivationRounding) -> None:
        self.inner, self.rounding = inner, rounding
        self.outputs, self.inputs = inner.outputs, inner.inputs

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """The inner weight's rows."""
        return self.inner.take(which, dtype)

    def nbytes(self) -> int:
        """Bytes of the inner weight."""
        return self.inner.nbytes()


class ScaledInputs(PackedWeight):
    """Activations are multiplied by ``factor`` (float32 [inputs]) before anything else: smoothing that was not folded into the weight."""

    layout = "scaled_inputs"

    def __init__(self, inner: PackedWeight, factor: Tensor) -> None:
        if factor.dtype != torch.float32 or list(factor.shape) != [inner.inputs]:
            raise ValueError(f"factor is {factor.dtype} {list(factor.shape)}; torch.float32 [{inner.inputs}] is needed")
        self.inner, self.factor = inner, factor
        self.outputs, self.inputs = inner.outputs, inner.inputs

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """The inner weight's rows, their columns multiplied."""
        return (self.inner.take(which, torch.float32) * self.factor).to(dtype)

    def nbytes(self) -> int:
        """Bytes of the inner weight and the factors."""
        return self.inner.nbytes() + self.factor.nbytes


class Adapted(PackedWeight):
    """``inner`` + ``up`` · ``down``: a low-rank addition beside a weight that it cannot be rounded into.

    ``down`` [rank, inputs] and ``up`` [outputs, rank] in the dtype of activations.
    """

    layout = "adapted"

    def __init__(self, inner: PackedWeight, down: Tensor, up: Tensor) -> None:
        wanted = ([len(down), inner.inputs], [inner.outputs, len(down)])
        if [list(down.shape), list(up.shape)] != list(wanted):
            raise ValueError(f"down and up are {list(down.shape)} and {list(up.shape)}; {wanted[0]} and {wanted[1]} are needed")
        self.inner, self.down, self.up = inner, down, up
        self.outputs, self.inputs = inner.outputs, inner.inputs

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """The inner weight's rows with the addition, computed in float32."""
        return (self.inner.take(which, torch.float32) + self.up[which].float() @ self.down.float()).to(dtype)

    def nbytes(self) -> int:
        """Bytes of the inner weight and the addition."""
        return self.inner.nbytes() + self.down.nbytes + self.up.nbytes


class AdaptedKernel(LinearKernel):
    """The inner kernel's product, and the addition's two small ones."""

    def __init__(self, packed: Adapted, inner: LinearKernel) -> None:
        self.down, self.up, self.inner = packed.down, packed.up, inner

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype."""
        down, up = self.down.to(x.dtype), self.up.to(x.dtype)
        return self.inner.apply(x, bias) + functional.linear(functional.linear(x, down), up)


class PermutedKernel(LinearKernel):
    """Gathers the activations by the order, then uses the inner kernel."""

    def __init__(self, packed: Permuted, inner: LinearKernel) -> None:
        self.inner = inner
        self.fills = packed.inputs < packed.inner.inputs
        # Where x has a 0 appended, that is what a filling column meets.
        self.order = packed.order.where(packed.order >= 0, packed.inputs) if self.fills else packed.order

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype."""
        if self.fills:
            x = functional.pad(x, (0, 1))
        return self.inner.apply(x.index_select(-1, self.order), bias)


class JoinedKernel(LinearKernel):
    """The parts' products side by side."""

    def __init__(self, packed: Joined, inner: Sequence[LinearKernel]) -> None:
        self.sizes, self.inner = [part.outputs for part in packed.parts], tuple(inner)

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype."""
        biases: Sequence[Tensor | None] = [None] * len(self.inner) if bias is None else torch.split(bias, self.sizes)
        return torch.cat([kernel.apply(x, each) for kernel, each in zip(self.inner, biases, strict=True)], -1)


class RoundedInputsKernel(LinearKernel):
    """Rounds the activations, multiplies them in float32, in which rounded values are exact, and gives back x's dtype."""

    def __init__(self, packed: RoundedInputs, inner: LinearKernel) -> None:
        self.rounding, self.inner = packed.rounding, inner

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype."""
        product = self.inner.apply(self.rounding.round(x), None if bias is None else bias.float())
        return product.to(x.dtype)


class ScaledInputsKernel(LinearKernel):
    """Multiplies the activations in float32, then uses the inner kernel."""

    def __init__(self, packed: ScaledInputs, inner: LinearKernel) -> None:
        self.factor, self.inner = packed.factor, inner

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype."""
        return self.inner.apply((x.float() * self.factor).to(x.dtype), bias)


def composite_kernel(packed: PackedWeight, kernel: Callable[[PackedWeight], LinearKernel]) -> LinearKernel | None:
    """The kernel of a weight that is made of others, from ``kernel`` of each of them; None for other layouts."""
    if isinstance(packed, Permuted):
        return PermutedKernel(packed, kernel(packed.inner))
    if isinstance(packed, Joined):
        return JoinedKernel(packed, [kernel(part) for part in packed.parts])
    if isinstance(packed, Adapted):
        return AdaptedKernel(packed, kernel(packed.inner))
    if isinstance(packed, ScaledInputs):
        return ScaledInputsKernel(packed, kernel(packed.inner))
    if isinstance(packed, RoundedInputs):
        return RoundedInputsKernel(packed, kernel(packed.inner))
    return None
