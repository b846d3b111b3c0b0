"""AutoAWQ's gemv version: words run along the inputs, groups' scales and zero points are filled up to whole words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.layers.contents import check_numbers
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._integers import SCALES, grouped
from ._tensors import check, damaged, require


class AWQRowsFormat(WeightFormat):
    """``qweight`` int32 [N, K / 8], ``qzeros`` int32 [N, words], ``scales`` [N, 8 · words]; fields of a word in order, the lowest first.

    ``words`` hold at least K / group zero points; what lies beyond those means nothing.
    """

    def __init__(self, group: int, inputs: int) -> None:
        self.group = inputs if group < 0 else group

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """See the contract; scales and zero points as :meth:`unfold` leaves them."""
        return (
            CheckpointTensor("qweight", 0, 1, input_group=8),
            CheckpointTensor("qzeros", 0, 1, input_group=self.group),
            CheckpointTensor("scales", 0, 1, input_group=self.group),
        )

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Zero points [N, groups], one byte each, and as many scales."""
        if suffix == "qweight":
            return tensor
        if suffix == "qzeros":
            check(part, suffix, tensor, dtypes=(torch.int32,))
            tensor = fields(tensor) if tensor.dim() == 2 else tensor
        return leading(part, suffix, tensor, -(-part.inputs // self.group), self.group, 1)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        groups = -(-layer.inputs // self.group)
        words = check(layer, "qweight", require(layer, tensors, "qweight"), (layer.outputs, layer.inputs // 8), (torch.int32,))
        scale = check(layer, "scales", require(layer, tensors, "scales"), (layer.outputs, groups), SCALES)
        zeros = check(layer, "qzeros", require(layer, tensors, "qzeros"), (layer.outputs, groups), (torch.uint8,))
        return grouped(fields(words), scale, zeros, bits=4, group=min(self.group, layer.inputs))


def leading(part: LinearShape, suffix: str, tensor: Tensor, groups: int, group: int, axis: int) -> Tensor:
    """The elements of scales or zero points that belong to a group; the producer fills up whole words, or 2 or 4 of these."""
    words = -(-groups // 8)
    filled = -(-words // (128 // group)) * (128 // group) if group in (32, 64) else words
    if tensor.dim() != 2 or tensor.shape[axis] not in (groups, 8 * words, 8 * filled):
        raise damaged(part, suffix, f"has shape {list(tensor.shape)}", f"{groups} or {8 * filled} along axis {axis}")
    check_numbers(f"{part.name}.{suffix}", tensor)
    return tensor.narrow(axis, 0, groups)


def fields(words: Tensor) -> Tensor:
    """int32 [rows, n] → uint8 [rows, 8 n]: 4-bit fields, the lowest first."""
    return torch.stack([(words >> shift & 15).to(torch.uint8) for shift in range(0, 32, 4)], -1).flatten(1)
