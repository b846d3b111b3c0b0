"""Canonical rows of raw blocks, each block with scales of its own inside: GGUF types that no other layout holds exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.layers.packed_integer import GroupedInteger
from engine.plugin.contracts.packed import PackedWeight


@dataclass(frozen=True, slots=True)
class BlockKind:
    """A block type: ``nbytes`` hold ``elements`` weights. ``unpack``: uint8 [n, nbytes] → float32 [n, elements]. ``name``: ``q6_k``

    ``scales``: uint8 [n, nbytes] → the floats that a block's weights are multiplied by, to know a damaged one by.
    ``nearest``: uint8 [outputs, row bytes] → integers with a float16 scale per 32 inputs, as near as they come (within 0.4 % of a
    group's largest): for a device whose kernels read no such blocks and round activations to 8 bits anyway.
    """

    name: str
    elements: int
    nbytes: int
    unpack: Callable[[Tensor], Tensor]
    nearest: Callable[[Tensor], GroupedInteger] | None = None
    scales: Callable[[Tensor], Tensor] | None = None


class RowBlocks(PackedWeight):
    """Each output is a row of ``inputs / kind.elements`` blocks: ``rows`` uint8 [outputs, row bytes], as the file holds them."""

    layout = "blocks"

    def __init__(self, rows: Tensor, kind: BlockKind, *, inputs: int, exclusive: bool = False) -> None:
        if inputs % kind.elements:
            raise ValueError(f"inputs is {inputs}; {kind.name} needs a multiple of {kind.elements}")
        width = inputs // kind.elements * kind.nbytes
        if rows.dtype != torch.uint8 or rows.dim() != 2 or rows.shape[1] != width:
            raise ValueError(f"rows are {rows.dtype} {list(rows.shape)}; {kind.name} of {inputs} inputs needs torch.uint8 rows of {width}")
        self.rows, self.kind = rows, kind
        self.exclusive = exclusive
        self.outputs, self.inputs = len(rows), inputs

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Computed in float32 by the kind, then rounded to ``dtype``."""
        data = self.rows[which]
        return self.kind.unpack(data.reshape(-1, self.kind.nbytes)).reshape(len(data), self.inputs).to(dtype)

    def nbytes(self) -> int:
        """Bytes of the blocks."""
        return self.rows.nbytes
