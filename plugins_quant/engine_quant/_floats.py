"""Weights in 8-bit floats with a scale per tensor, output, group or block: read from a checkpoint, or rounded at load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

import msgspec
import torch
from torch import Tensor

from engine.layers.packed import DensePacked
from engine.layers.packed_quantized import ScaledFloat8
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._inputs import Inputs, wrapped
from ._tensors import check, damaged, per_part, plain, require, require_one, sizes_of

PLAIN = (torch.float32, torch.bfloat16, torch.float16)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class Float8Format(WeightFormat):
    """``weight`` in float8 [N, K], times a scale.

    ``block``: outputs and inputs that one scale covers; 0 stands for all of them: (0, 0) one scale per layer, (1, 0) one per
    output, (1, 32) groups, (128, 128) blocks. ``scales``: suffixes under which the scale may stand. Parts of a fused layer
    that have one scale each become one scale per output: rounding them again to a common scale would lose what they hold.
    ``spread``: blocks' scales are [⌈N / rows⌉, 1, ⌈K / columns⌉, 1].
    A layer whose weight is in 16 or 32 bits without a scale is left as it is: producers skip layers that their lists do not name.
    """

    def __init__(
        self, block: tuple[int, int], inputs: Inputs | None = None, scales: tuple[str, ...] = ("weight_scale",), *, spread: bool = False
    ) -> None:  # fmt: skip
        self.block, self.inputs, self.scales, self.spread = block, inputs, scales, spread

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The weight, its scale, and the activations' static scale."""
        height, width = self.block
        scale = CheckpointTensor(
            "", 0 if height else None, (2 if self.spread else 1) if width else None, height or 1, width or 1, optional=True, spreads=True
        )
        scales = tuple(msgspec.structs.replace(scale, suffix=name) for name in self.scales)
        return (CheckpointTensor("weight", 0, 1), *scales, *(self.inputs.tensors() if self.inputs else ()))

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        weight = check(layer, "weight", require(layer, tensors, "weight"), (layer.outputs, layer.inputs))
        if weight.dtype in PLAIN and not any(name in tensors for name in self.scales):
            return DensePacked(weight.to(dtype, copy=True), exclusive=True)
        check(layer, "weight", weight, dtypes=FLOAT8)
        return wrapped(self.inputs, self._scaled(layer, weight, tensors), layer, tensors)

    def _scaled(self, layer: LinearShape, weight: Tensor, tensors: Mapping[str, Tensor]) -> ScaledFloat8:
        suffix, found = require_one(layer, tensors, self.scales)
        scale = as_scale(layer, suffix, found)
        height, width = self.block
        if not height:
            return one_scale(layer, weight, per_part(layer, suffix, scale))
        if not width:
            check(layer, suffix, scale.reshape(-1), (layer.outputs,))
            return ScaledFloat8(weight, scale.reshape(-1, 1), rows=1, columns=layer.inputs)
        scale, rows = block_rows(layer, suffix, scale.reshape(scale.shape[0], -1) if self.spread else scale, height)
        columns = smaller(width, (layer.inputs,), scale.shape[-1])
        if columns is None or scale.dim() != 2:
            raise damaged(layer, suffix, f"has shape {list(found.shape)}", f"{-(-layer.inputs // width)} columns")
        return ScaledFloat8(weight, scale, rows=rows, columns=columns)


class RoundedFloat8Format(WeightFormat):
    """A plain checkpoint's ``weight``, rounded to float8 at load: one scale per part (``per_output`` False), or one per output.

    A tensor-parallel rank rounds what it holds, by the largest number in it.
    """

    def __init__(self, inputs: Inputs | None, *, per_output: bool = False) -> None:
        self.inputs, self.per_output = inputs, per_output

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The weight."""
        return (CheckpointTensor("weight", 0, 1, plain=True),)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        weight = check(layer, "weight", require(layer, tensors, "weight"), (layer.outputs, layer.inputs), PLAIN)
        if self.per_output:
            return wrapped(self.inputs, ScaledFloat8.quantize(weight, rows=1), layer, tensors)
        parts = [ScaledFloat8.quantize(part) for part in torch.split(weight, list(sizes_of(layer)))]
        values = torch.cat([part.values.view(torch.uint8) for part in parts]).view(torch.float8_e4m3fn)
        return wrapped(self.inputs, one_scale(layer, values, torch.cat([part.scale.reshape(1) for part in parts])), layer, tensors)


def as_scale(layer: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
    """A scale in a float type: bytes are powers of two (e8m0)."""
    if tensor.dtype == torch.uint8:
        return tensor.view(torch.float8_e8m0fnu)
    if not tensor.is_floating_point():
        raise damaged(layer, suffix, f"holds {plain(tensor.dtype)}", "floats")
    return tensor


def one_scale(layer: LinearShape, weight: Tensor, scales: Tensor) -> ScaledFloat8:
    """A weight whose parts have one scale each (float32 [parts]), or all the same ([1])."""
    if len(scales) == 1:
        return ScaledFloat8(weight, scales.reshape(1, 1), rows=layer.outputs, columns=layer.inputs)
    rows = scales.repeat_interleave(torch.tensor(sizes_of(layer), device=scales.device))
    return ScaledFloat8(weight, rows.unsqueeze(1), rows=1, columns=layer.inputs)


def smaller(group: int, sizes: Sequence[int], count: int) -> int | None:
    """What each of ``count`` scales covers of parts of those sizes: the group, or a divisor of it and of them all.

    Shards that cut groups get their scales repeated for smaller ones.
    """
    for each in range(group, 0, -1):
        whole = each == group or (group % each == 0 and not any(size % each for size in sizes))
        if whole and sum(-(-size // each) for size in sizes) == count:
            return each
    return None


def block_rows(layer: LinearShape, suffix: str, scale: Tensor, height: int) -> tuple[Tensor, int]:
    """Block scales of joined parts [blocks, columns] as scales of equally high blocks, and that height.

    Each part begins a block of its own. A part that ends inside one moves all that follow, so blocks are then made smaller.
    """
    sizes = sizes_of(layer)
    each = smaller(height, sizes, scale.shape[0])
    if each is None:
        wanted = sum(-(-size // height) for size in sizes)
        raise damaged(layer, suffix, f"has shape {list(scale.shape)}", f"{wanted} rows of blocks of {height} outputs")
    if all(size % each == 0 for size in sizes[:-1]):
        return scale, each
    small = gcd(each, *sizes[:-1])
    rows, start = [], 0
    for size in sizes:
        rows.append(torch.arange(-(-size // small), device=scale.device) * small // each + start)
        start += -(-size // each)
    numbers = torch.cat(rows)
    if scale.element_size() == 1:
        return scale.view(torch.uint8)[numbers].view(scale.dtype), small
    return scale[numbers], small
