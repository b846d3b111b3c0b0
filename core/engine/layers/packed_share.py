"""A rank's share of a weight that was packed whole, because its file format has nothing that could be cut."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor

from engine.layers.packed import DensePacked
from engine.layers.packed_codebook import Codebook
from engine.layers.packed_shared import SharedScales
from engine.layers.shards import Piece
from engine.plugin.contracts.packed import PackedWeight


def take_share(packed: PackedWeight, rows: Sequence[Piece], inputs: Piece) -> PackedWeight:
    """Those rows, one piece below the other, of those inputs; in memory of its own where that is less than the whole.

    Scales of a group that the share cuts are repeated for smaller groups. Raises :class:`ValueError` for a layout that this cannot cut.
    """
    if sum(piece.size for piece in rows) == packed.outputs and inputs.size == packed.inputs:
        return packed
    if isinstance(packed, DensePacked):
        return DensePacked(_rows(packed.weight.narrow(1, inputs.start, inputs.size), rows), exclusive=True)
    if isinstance(packed, SharedScales):
        return packed.share(rows, inputs.start, inputs.size)
    if not isinstance(packed, Codebook):
        raise ValueError(f"a tensor-parallel rank's share of the layout {packed.layout} cannot be taken")
    own = packed.group if inputs.size == packed.inputs else gcd(packed.group, inputs.start, inputs.size)
    scale = _rows(packed.scale, rows).repeat_interleave(packed.group // own, 1)
    scale = scale[:, inputs.start // own : -(-(inputs.start + inputs.size) // own)]
    if packed.bits == 4 and inputs.start % 2:
        codes = _rows(packed.unpacked(), rows)[:, inputs.start : inputs.start + inputs.size]
        return Codebook.of(codes, packed.table, scale, bits=4, group=own, outer=_outer(packed, rows))
    each = 8 // packed.bits
    codes = _rows(packed.codes, rows)[:, inputs.start // each : -(-(inputs.start + inputs.size) // each)]
    return Codebook(
        codes.contiguous(), packed.table, scale.contiguous(), bits=packed.bits, inputs=inputs.size, group=own,
        outer=_outer(packed, rows), exclusive=True,
    )  # fmt: skip


def _rows(tensor: Tensor, rows: Sequence[Piece]) -> Tensor:
    return torch.cat([tensor.narrow(0, piece.start, piece.size) for piece in rows])


def _outer(packed: Codebook, rows: Sequence[Piece]) -> Tensor | None:
    return None if packed.outer is None else _rows(packed.outer, rows)
