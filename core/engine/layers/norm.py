"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from engine.layers.loading import CheckpointLayer, Slot, copy_slot
from engine.plugin.contracts.model import ModelContext


class RMSNorm(CheckpointLayer):
    """x / rms(x) · w over the last axis, computed in float32. ``offset`` 1: the checkpoint keeps w - 1 (Gemma)."""

    def __init__(self, context: ModelContext, name: str, size: int, eps: float, *, offset: float = 0.0) -> None:
        super().__init__()
        self.name = name
        self.eps = eps
        self.offset = offset
        self.ops = context.ops
        self.weight = torch.empty(size, dtype=context.dtype, device=context.device)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as x."""
        return self.ops.rms_norm(x, self.weight, self.eps, offset=self.offset)

    def slots(self) -> Iterable[Slot]:
        """The weight."""
        yield copy_slot(f"{self.name}.weight", self.weight)


class LayerNorm(CheckpointLayer):
    """Layer normalisation over the last axis. ``affine`` False: no weight and bias."""

    def __init__(self, context: ModelContext, name: str, size: int, eps: float, *, affine: bool = True) -> None:
        super().__init__()
        self.name = name
        self.eps = eps
        self.ops = context.ops
        self.weight: Tensor | None = torch.empty(size, dtype=context.dtype, device=context.device) if affine else None
        self.bias: Tensor | None = torch.empty(size, dtype=context.dtype, device=context.device) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as x."""
        return self.ops.layer_norm(x, self.weight, self.bias, self.eps)

    def slots(self) -> Iterable[Slot]:
        """Weight and bias."""
        if self.weight is not None and self.bias is not None:
            yield copy_slot(f"{self.name}.weight", self.weight)
            yield copy_slot(f"{self.name}.bias", self.bias)
