"""Canonical packed weights and quantizers: a format *reads*, a packed weight *holds*, a device kernel *computes*."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LinearShape(msgspec.Struct, frozen=True):
    """One linear layer as the model has it, before tensor-parallel sharding.

    ``name`` is its checkpoint prefix (``model.layers.0.self_attn.q_proj``; a fused layer has its ``parts`` instead, in output order,
    each with its own ``sizes`` entry). ``outputs`` = sum(sizes). ``experts`` > 0: the layer exists once per expert.
    """

    name: str
    inputs: int
    outputs: int
    parts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    experts: int = 0


class CheckpointTensor(msgspec.Struct, frozen=True):
    """A tensor that a quantization format keeps for a linear layer under ``<layer name>.<suffix>``.

    ``output_axis``/``input_axis``: the axis that runs along the layer's outputs/inputs (None: the tensor has none);
    ``output_group``/``input_group``: how many outputs/inputs one element of that axis covers (packing factor or group size).
    From these the layer cuts tensor-parallel shards and joins fused parts. A tensor without an output axis of a layer that is fused from
    several parts arrives in ``pack`` stacked: [parts, …].
    """

    suffix: str
    output_axis: int | None = None
    input_axis: int | None = None
    output_group: int = 1
    input_group: int = 1
    optional: bool = False


class PackedWeight(ABC):
    """A linear weight in one canonical layout, on a device. ``outputs`` × ``inputs`` elements.

    Canonical layouts share this interface so that N formats × M devices stay N + M. ``layout`` names it: ``dense``,
    ``grouped_int``, ``codebook``, ``scaled_float8``, ``blocks``, ``additive``, ``sparse24``, and those made of others:
    ``permuted``, ``joined``, ``rounded_inputs``, whose kernels the core makes of the device's kernels of their parts.
    """

    layout: str
    outputs: int
    inputs: int

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight as a dense [outputs, inputs] tensor: the definition that every kernel is tested against."""
        return self.take(slice(0, self.outputs), dtype)

    @abstractmethod
    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Dequantized outputs: ``which`` is a slice without step or int64 [n] → [n, inputs]."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that the weight occupies."""


class LinearKernel(ABC):
    """A device's way to multiply by one packed weight; made once per layer, called per step.

    ``gathers``: it also gives back rows of the weight, so that a tied embedding needs no copy of it.
    """

    gathers: bool = False

    @abstractmethod
    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[rows, inputs] → [rows, outputs], in x's dtype; bias [outputs] is added."""

    def gather(self, ids: Tensor, scale: float | None = None) -> Tensor:
        """Rows ``ids`` (int64 [T]) of the weight: [T, inputs] in its dtype, times ``scale`` rounded to that dtype."""
        raise NotImplementedError(f"{type(self).__name__} cannot gather rows")


class WeightFormat(ABC):
    """How one layer's weight is kept in the checkpoint, and how it becomes canonical."""

    @abstractmethod
    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The tensors to collect before ``pack`` can be called."""

    @abstractmethod
    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """One rank's joined and sharded tensors by suffix → the packed weight, for activations of ``dtype``."""


class Quantizer(ABC):
    """A quantization method on one checkpoint. Made once per worker."""

    @abstractmethod
    def linear(self, layer: LinearShape) -> WeightFormat | None:
        """The format of that layer, or None where the checkpoint leaves it unquantized."""

    def kv_scale_suffixes(self) -> Mapping[str, str]:
        """Checkpoint suffix → ``k_scale`` or ``v_scale``, for checkpoints that carry KV-cache scales."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What ``engine plan`` prints of the method (bits, group size …)."""
        return {}
