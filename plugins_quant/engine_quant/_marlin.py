"""Weights in Marlin's order: tiles of 16 × 16, permuted for tensor cores; undone here, without any GPU."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.plugin import CheckpointTensor, LinearShape

from ._integers import SCALES
from ._tensors import check, require

#: Codes that are permuted among each other.
RUN = 1024
#: Outputs whose scales are permuted among each other: in groups, and where a column has one scale.
GROUPED_SCALES = tuple(i + 8 * j for i in range(8) for j in range(8))
COLUMN_SCALES = tuple(2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25))
GROUPED_SCALES_24 = tuple(8 * i + j for i in range(8) for j in (0, 4, 1, 5, 2, 6, 3, 7))
_NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)
_BYTES = (0, 2, 1, 3)
_SIGNED_NIBBLES = (4, 0, 5, 1, 6, 2, 7, 3)


def code_tensor(suffix: str, bits: int, rows: int = 16) -> CheckpointTensor:
    """The packed codes: 64 outputs are a run's words; a row of words covers ``rows`` inputs."""
    return CheckpointTensor(suffix, 1, 0, output_group=64, output_items=RUN * bits // 32, input_group=rows)


def scale_tensor(suffix: str, group: int, inputs: int) -> CheckpointTensor:
    """The permuted scales [groups, outputs]; one group belongs to all inputs."""
    return CheckpointTensor(suffix, 1, None if group == inputs else 0, output_group=64, output_items=64, input_group=group)


def dense_order(bits: int) -> Tensor:
    """Where each of a run's 1024 packed codes stands in the tiles, of Marlin."""
    eights = [[16 * row + index // 4 + 8 * block for block in (0, 1) for row in _rows(index)] for index in range(32)]
    return _spread(eights, 256, _NIBBLES if bits == 4 else _BYTES)


def sparse_order(bits: int) -> Tensor:
    """The same of Marlin-24."""
    eights = []
    for index in range(32):
        column = index // 4
        eights.append([16 * row + 256 * (column // 2) + 8 * (column % 2) + 4 * block for block in (0, 1) for row in _rows(index)])
    return _spread(eights, 1, _NIBBLES if bits == 4 else _BYTES)


def qqq_order(grouped: bool) -> Tensor:
    """The same of QQQ."""
    rows = [range(4 * (index % 4), 4 * (index % 4) + 4) for index in range(32)]
    eights = [[16 * row + index // 4 + 8 * block for block in (0, 1) for row in rows[index]] for index in range(32)]
    return _spread(eights, 256, _NIBBLES if grouped else _SIGNED_NIBBLES)


def _rows(index: int) -> tuple[int, ...]:
    start = 2 * (index % 4)
    return start, start + 1, start + 8, start + 9


def _spread(eights: list[list[int]], step: int, fields: tuple[int, ...]) -> Tensor:
    """Each list of eight four times, ``step`` apart; then each word's fields reordered."""
    whole = torch.tensor([place + step * times for eight in eights for times in range(4) for place in eight])
    return whole.view(-1, len(fields))[:, list(fields)].flatten()


def unpack(words: Tensor, bits: int, order: Tensor) -> Tensor:
    """int32 [inputs / 16, outputs · bits / 2] → uint8 codes [outputs, inputs]."""
    count = 32 // bits
    mask = (1 << bits) - 1
    packed = torch.stack([((words >> (field * bits)) & mask).to(torch.uint8) for field in range(count)], -1).view(-1, RUN)
    codes = torch.empty_like(packed)
    codes[:, order.to(words.device)] = packed
    tiles = codes.view(len(words), -1, 16, 16)
    return tiles.permute(1, 3, 0, 2).reshape(tiles.shape[1] * 16, -1)


def unpermute_scales(scale: Tensor, order: tuple[int, ...]) -> Tensor:
    """[groups, outputs] → [outputs, groups] with the permutation undone."""
    packed = scale.reshape(-1, len(order))
    plain = torch.empty_like(packed)
    plain[:, list(order)] = packed
    return plain.view(scale.shape).t()


def unpermute_positions(meta: Tensor, layer: LinearShape) -> Tensor:
    """int16 [inputs / 32, 2 · outputs] in CUTLASS' reordered layout → uint8 places [outputs, inputs / 2] of the kept elements, 0 to 3."""
    outputs, columns = layer.outputs, layer.inputs // 16
    rows = torch.arange(outputs).view(-1, 1).expand(-1, columns)
    cols = torch.arange(columns).expand(outputs, -1)
    moved = rows // 64 * 64 + rows % 2 * 2 + rows % 8 // 4 + rows % 32 % 4 // 2 * 32 + rows % 64 // 8 * 4
    up = (moved % 2 == 0) & (cols % 2 == 1)
    down = (moved % 2 == 1) & (cols % 2 == 0)
    moved, cols = moved + up.long() - down.long(), cols - up.long() + down.long()
    places = (cols // 2) * outputs * 2 + moved * 2 + cols % 2
    fields = meta.reshape(-1)[places.to(meta.device)].to(torch.int32)
    return torch.stack([((fields >> (2 * index)) & 3).to(torch.uint8) for index in range(8)], -1).flatten(1)


def checked_codes(layer: LinearShape, tensors: Mapping[str, Tensor], suffix: str, bits: int, inputs: int) -> Tensor:
    """The packed codes of ``inputs`` stored rows."""
    return check(layer, suffix, require(layer, tensors, suffix), (inputs // 16, layer.outputs * bits // 2), (torch.int32,))


def checked_scale(layer: LinearShape, tensors: Mapping[str, Tensor], suffix: str, groups: int) -> Tensor:
    """Scales [groups, outputs]."""
    return check(layer, suffix, require(layer, tensors, suffix), (groups, layer.outputs), SCALES)
