"""GPTQ tensors to canonical weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.layers.packed_quantized import Joined
from engine.plugin import LinearShape, PackedWeight

from ._integers import SCALES, grouped, grouped_by_index, unpack_words
from ._tensors import check, damaged, part_of, require, sizes_of

if TYPE_CHECKING:
    from ._gptq import Settings


def pack(
    settings: Settings, layer: LinearShape, tensors: Mapping[str, Tensor], *, groups: int, group: int, act_order: bool
) -> PackedWeight:  # fmt: skip
    """One rank's tensors → GroupedInteger, with act-order in a Permuted; ``groups`` and ``group``: of the whole layer's inputs."""
    here = groups if act_order or groups == 1 else layer.inputs // group
    codes, scale, zeros = read_tensors(settings, layer, tensors, here)
    # A shard of a single group is a group of its own.
    group = min(group, layer.inputs)
    index = tensors.get("g_idx")
    if index is not None:
        index = check_index(layer, index)
        # Scales that were cut belong to the rank's own inputs, of which the first is in the first group.
        index = index - index[:, :1] if here < groups else index
    if index is None or here == 1 or (here * group == layer.inputs and _plain(index, group)):
        if index is None and act_order:
            raise damaged(layer, "g_idx", "is missing", "it (desc_act)")
        return grouped(codes, scale, zeros, bits=settings.bits, group=group)
    if not act_order and here < groups:
        raise damaged(layer, "g_idx", "has an order of its own", "desc_act true, so that ranks keep all scales")
    if len(index) == 1 or bool((index == index[0]).all()):
        return grouped_by_index(layer, codes, scale, zeros, index[0], bits=settings.bits, group=group)
    parts, start = [], 0
    for number, size in enumerate(sizes_of(layer)):
        rows = slice(start, start + size)
        own = None if zeros is None else zeros[rows]
        parts.append(
            grouped_by_index(part_of(layer, number), codes[rows], scale[rows], own, index[number], bits=settings.bits, group=group)
        )
        start += size
    return Joined(parts)


def read_tensors(
    settings: Settings, layer: LinearShape, tensors: Mapping[str, Tensor], groups: int
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """uint8 codes [outputs, inputs], scales and zero points [outputs, groups] (None: 2^(bits-1))."""
    bits = settings.bits
    words = check(layer, "qweight", require(layer, tensors, "qweight"), (layer.inputs * bits // 32, layer.outputs), (torch.int32,))
    scale = check(layer, "scales", require(layer, tensors, "scales"), (groups, layer.outputs), SCALES).t()
    zeros = None
    if not settings.implicit:
        packed = check(layer, "qzeros", require(layer, tensors, "qzeros"), (groups, layer.outputs * bits // 32), (torch.int32,))
        zeros = unpack_words(packed.t().contiguous(), bits).to(torch.int16) + settings.offset
    return unpack_words(words.contiguous(), bits).t(), scale, zeros


def check_index(layer: LinearShape, index: Tensor) -> Tensor:
    """g_idx as int32 [parts, inputs] (or [1, inputs])."""
    if index.dtype not in (torch.int32, torch.int64) or index.shape[-1] != layer.inputs or index.dim() > 2:
        raise damaged(layer, "g_idx", f"holds {index.dtype} {list(index.shape)}", f"int32 [{layer.inputs}]")
    return index.reshape(-1, layer.inputs)


def _plain(index: Tensor, group: int) -> bool:
    """Whether g_idx just counts the groups."""
    return bool((index == torch.arange(index.shape[1], device=index.device) // group).all())
