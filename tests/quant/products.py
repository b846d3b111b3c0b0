"""Errors of single linear layers: kernels against the product with the dequantized weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.layers.packed_composite import Joined, Permuted, RoundedInputs, ScaledInputs

#: Rows of activations per call: what every thread rounds for itself, and what is rounded once for all.
ROWS = (1, 5, 24)


class Product(NamedTuple):
    """``largest``: max |error| / max |product|; ``mean``: the root-mean-square error over the root-mean-square product."""

    largest: float
    mean: float


def multiplied(packed: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
    """x [rows, inputs] by the dequantized weight, multiplied in ``dtype``: the definition. What the format rounds is rounded."""
    if isinstance(packed, Joined):
        return torch.cat([multiplied(part, x, dtype) for part in packed.parts], -1)
    if isinstance(packed, RoundedInputs):
        return multiplied(packed.inner, packed.rounding.round(x), dtype)
    if isinstance(packed, ScaledInputs):
        return multiplied(packed.inner, x.float() * packed.factor, dtype)
    if isinstance(packed, Permuted):
        order = packed.order.long()
        return multiplied(packed.inner, x[:, order.clamp(min=0)] * (order >= 0), dtype)
    return x.to(dtype) @ packed.dequantize(torch.float32).to(dtype).t()


def error_of(packed: Any, kernel: Any, dtype: torch.dtype) -> Product:
    """The worst error of that kernel for random activations of ``dtype``.

    The truth is multiplied in float32; that of float32 activations in float64, so that the reference is not compared with itself.
    """
    torch.manual_seed(0)
    found = []
    for rows in ROWS:
        x = torch.randn(rows, packed.inputs).to(dtype)
        true = multiplied(packed, x, torch.float64 if dtype == torch.float32 else torch.float32).double()
        error = kernel.apply(x, None).double() - true
        mean = error.square().mean().sqrt() / true.square().mean().sqrt()
        found.append(Product(float(error.abs().max() / true.abs().max()), float(mean)))
    return Product(max(each.largest for each in found), max(each.mean for each in found))


def errors_of(held: Mapping[str, tuple[Any, Any]], computed: Mapping[str, tuple[Any, Any]], dtype: torch.dtype) -> Product:
    """The worst of a model's quantized layers: weights of ``held``, which can still be read, and the kernels of ``computed``."""
    found = [error_of(weight, computed[name][1], dtype) for name, (weight, _) in held.items() if weight.layout != "dense"]
    return Product(max(each.largest for each in found), max(each.mean for each in found))
