"""Parts of a fused layer as one packed weight: of one layout where they agree in it, so that one kernel does them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.layers.packed import DensePacked
from engine.layers.packed_codebook import Codebook
from engine.layers.packed_composite import Joined
from engine.layers.packed_float8 import ScaledFloat8
from engine.layers.packed_integer import GroupedInteger
from engine.plugin.contracts.packed import PackedWeight


def join(parts: Sequence[PackedWeight]) -> PackedWeight:
    """The parts stacked along the outputs: values are the same, whether that takes one layout or a :class:`Joined`."""
    if len(parts) == 1:
        return parts[0]
    return _integers(parts) or _codebooks(parts) or _floats8(parts) or _dense(parts) or Joined(parts)


def _integers(parts: Sequence[PackedWeight]) -> GroupedInteger | None:
    same = [part for part in parts if isinstance(part, GroupedInteger)]
    if len(same) != len(parts) or len({(p.bits, p.group, p.exact, p.scale.dtype, p.shift is None, p.inputs) for p in same}) != 1:
        return None
    shifts = [part.shift for part in same if part.shift is not None]
    one = same[0]
    return GroupedInteger(
        torch.cat([p.values for p in same]), torch.cat([p.scale for p in same]), torch.cat(shifts) if shifts else None,
        bits=one.bits, inputs=one.inputs, group=one.group, exclusive=True, exact=one.exact,
    )  # fmt: skip


def _codebooks(parts: Sequence[PackedWeight]) -> Codebook | None:
    same = [part for part in parts if isinstance(part, Codebook)]
    if len(same) != len(parts) or len({(p.bits, p.group, p.scale.dtype, p.outer is None, p.inputs) for p in same}) != 1:
        return None
    one = same[0]
    if not all(torch.equal(part.table, one.table) for part in same):
        return None
    outers = [part.outer for part in same if part.outer is not None]
    return Codebook(
        torch.cat([p.codes for p in same]), one.table, _cat([p.scale for p in same]),
        bits=one.bits, inputs=one.inputs, group=one.group, outer=torch.cat(outers) if outers else None, exclusive=True,
    )  # fmt: skip


def _floats8(parts: Sequence[PackedWeight]) -> ScaledFloat8 | None:
    same = [part for part in parts if isinstance(part, ScaledFloat8)]
    if len(same) != len(parts) or len({(p.values.dtype, p.scale.dtype, p.inputs) for p in same}) != 1:
        return None
    columns = {min(part.columns, part.inputs) for part in same}
    if len(columns) != 1 or any(part.rows != 1 for part in same):
        return None
    return ScaledFloat8(
        _cat([p.values for p in same]), _cat([p.scale for p in same]), rows=1, columns=columns.pop(), exclusive=True
    )  # fmt: skip


def _dense(parts: Sequence[PackedWeight]) -> DensePacked | None:
    same = [part for part in parts if isinstance(part, DensePacked)]
    if len(same) != len(parts) or len({part.weight.dtype for part in same}) != 1:
        return None
    return DensePacked(torch.cat([part.weight for part in same]), exclusive=True)


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """Not every device can stack 8-bit floats: their bytes can be everywhere."""
    if tensors[0].element_size() > 1:
        return torch.cat(list(tensors))
    return torch.cat([tensor.view(torch.uint8) for tensor in tensors]).view(tensors[0].dtype)
