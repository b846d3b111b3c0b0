"""How a checkpoint wants activations rounded, and packed weights that do so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.layers.packed_quantized import (
    ActivationRounding,
    Codebook,
    GroupedInteger,
    Joined,
    RoundedInputs,
    ScaledFloat8,
    ScaledInputs,
    Sparse24,
)
from engine.layers.rounding import Kind
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._tensors import damaged, per_part, plain, require_one, sizes_of


@dataclass(frozen=True)
class Inputs:
    """Activations of a layer as a checkpoint describes them; the fields are those of :class:`ActivationRounding`.

    ``scales``: suffixes under which a static scale, or the outer scale of NVFP4, may stand; none: everything is dynamic.
    ``reciprocal``: the number that is stored is 1 / scale. ``zero``: the suffix of a static zero point.
    """

    kind: Kind
    scales: tuple[str, ...] = ()
    reciprocal: bool = False
    zero: str | None = None
    group: int = 0
    top: float = 0.0
    upper: float | None = None
    asymmetric: bool = False
    scale_dtype: torch.dtype | None = None

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """What the checkpoint keeps for it; one number per layer each."""
        names = (*self.scales, self.zero) if self.zero else self.scales
        # Of several spellings one is there, which ``wrap`` checks.
        return tuple(CheckpointTensor(name, optional=True) for name in names)

    def wrap(self, packed: PackedWeight, layer: LinearShape, tensors: Mapping[str, Tensor]) -> PackedWeight:
        """The weight with its activations rounded; parts of a fused layer that round differently become parts of a joined weight."""
        roundings = self.roundings(layer, tensors)
        if len(roundings) == 1:
            return RoundedInputs(packed, roundings[0])
        start, parts = 0, []
        for size, rounding in zip(sizes_of(layer), roundings, strict=True):
            parts.append(RoundedInputs(outputs_of(packed, start, size), rounding))
            start += size
        return Joined(parts)

    def roundings(self, layer: LinearShape, tensors: Mapping[str, Tensor]) -> list[ActivationRounding]:
        """One for the whole layer, or one per part where their scales differ."""
        if not self.scales:
            return [self._rounding(None, None)]
        suffix, found = require_one(layer, tensors, self.scales)
        scales = per_part(layer, suffix, found)
        if bool((scales <= 0).any()):
            raise damaged(layer, suffix, "holds a number that is not above 0", "a positive scale")
        if self.reciprocal:
            scales = 1 / scales
        zeros = None
        if self.zero is not None and self.zero in tensors:
            zeros = per_part(layer, self.zero, tensors[self.zero], integers=True)
        count = max(len(scales), 1 if zeros is None else len(zeros))
        rows = [scales.expand(count)] if zeros is None else [scales.expand(count), zeros.expand(count)]
        return [self._rounding(row[0].reshape(1), row[1].reshape(1) if len(row) > 1 else None) for row in torch.stack(rows, 1)]

    def _rounding(self, scale: Tensor | None, zero: Tensor | None) -> ActivationRounding:
        return ActivationRounding(
            self.kind, scale, zero, group=self.group, top=self.top, upper=self.upper, asymmetric=self.asymmetric,
            scale_dtype=self.scale_dtype,
        )  # fmt: skip


def wrapped(inputs: Inputs | None, packed: PackedWeight, layer: LinearShape, tensors: Mapping[str, Tensor]) -> PackedWeight:
    """The weight with activations rounded where the checkpoint asks for it."""
    return packed if inputs is None else inputs.wrap(packed, layer, tensors)


class SmoothedFormat(WeightFormat):
    """A format beside which ``pre_quant_scale`` [K] may stand: what activations are multiplied by before they are rounded."""

    def __init__(self, inner: WeightFormat) -> None:
        self.inner = inner

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The format's own, and the factors."""
        return (*self.inner.tensors(), CheckpointTensor("pre_quant_scale", None, 0, optional=True))

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        packed = self.inner.pack(layer, tensors, dtype)
        if "pre_quant_scale" not in tensors:
            return packed
        found = tensors["pre_quant_scale"]
        if not found.is_floating_point() or found.shape[-1:] != (layer.inputs,):
            raise damaged(layer, "pre_quant_scale", f"holds {plain(found.dtype)} {list(found.shape)}", f"floats [{layer.inputs}]")
        rows = found.float().reshape(-1, layer.inputs)
        if bool((rows == rows[0]).all()):
            return ScaledInputs(packed, rows[0].contiguous())
        start, parts = 0, []
        for size, row in zip(sizes_of(layer), rows, strict=True):
            parts.append(ScaledInputs(outputs_of(packed, start, size), row.contiguous()))
            start += size
        return Joined(parts)


def outputs_of(packed: PackedWeight, start: int, size: int) -> PackedWeight:
    """Outputs [start, start + size) of a packed weight as a weight of its own."""
    rows = slice(start, start + size)
    if isinstance(packed, ScaledFloat8):
        if packed.rows >= packed.outputs:
            scale, height = packed.scale, size
        else:
            numbers = torch.arange(start, start + size, device=packed.scale.device)
            scale, height = packed.scale[numbers // packed.rows], 1
        return ScaledFloat8(packed.values[rows], scale, rows=height, columns=packed.columns)
    if isinstance(packed, GroupedInteger):
        shift = None if packed.shift is None else packed.shift[rows]
        return GroupedInteger(
            packed.values[rows], packed.scale[rows], shift, bits=packed.bits, inputs=packed.inputs, group=packed.group, exact=packed.exact
        )
    if isinstance(packed, Codebook):
        outer = None if packed.outer is None else packed.outer[rows]
        return Codebook(
            packed.codes[rows], packed.table, packed.scale[rows], bits=packed.bits, inputs=packed.inputs, group=packed.group, outer=outer
        )
    if isinstance(packed, Sparse24):
        return Sparse24(outputs_of(packed.kept, start, size), packed.positions[rows])
    if isinstance(packed, RoundedInputs):
        return RoundedInputs(outputs_of(packed.inner, start, size), packed.rounding)
    if isinstance(packed, Joined):
        for part in packed.parts:
            if start < part.outputs:
                return part if part.outputs == size else outputs_of(part, start, size)
            start -= part.outputs
    raise TypeError(f"a weight of layout {packed.layout!r} cannot be divided")
