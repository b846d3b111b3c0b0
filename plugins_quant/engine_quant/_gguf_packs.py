"""GGUF's block types as canonical packed weights: what each becomes in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from engine.layers.packed_quantized import E2M1, BlockKind, Codebook, GroupedInteger, RowBlocks
from engine.plugin import PackedWeight

from . import _gguf_integers as integers
from . import _gguf_lattices as lattices

#: What a layout keeps without loss and without more bytes than the file's: float16 scales of one level.
_GROUPED: dict[str, Callable[[Tensor], integers.Fields]] = {
    "q4_0": integers.q4_0, "q4_1": integers.q4_1, "q5_0": integers.q5_0, "q5_1": integers.q5_1, "q8_0": integers.q8_0,
    "tq1_0": integers.tq1_0, "tq2_0": integers.tq2_0,
}  # fmt: skip
#: Integers whose scales are products of a float16 and a small integer: exact only in float32, so the blocks stay as they are.
_TWO_LEVELS: dict[str, Callable[[Tensor], integers.Fields]] = {
    "q2_k": integers.q2_k, "q3_k": integers.q3_k, "q4_k": integers.q4_k, "q5_k": integers.q5_k, "q6_k": integers.q6_k,
}  # fmt: skip
_LATTICES: dict[str, Callable[[Tensor], Tensor]] = {
    "iq1_s": lattices.iq1_s, "iq1_m": lattices.iq1_m, "iq2_xxs": lattices.iq2_xxs, "iq2_xs": lattices.iq2_xs, "iq2_s": lattices.iq2_s,
    "iq3_xxs": lattices.iq3_xxs, "iq3_s": lattices.iq3_s,
}  # fmt: skip
_TABLES: dict[str, tuple[Callable[[Tensor], tuple[Tensor, Tensor]], tuple[float, ...]]] = {
    "iq4_nl": (lattices.iq4_nl, lattices.IQ4_TABLE), "iq4_xs": (lattices.iq4_xs, lattices.IQ4_TABLE), "mxfp4": (lattices.mxfp4, E2M1),
}  # fmt: skip
#: Rows that are unpacked at a time: what packing needs beside the result.
_AT_ONCE = 1 << 22


class Block(NamedTuple):
    """A block type by its lower-case name: elements and bytes."""

    name: str
    elements: int
    nbytes: int

    def pack(self, data: Tensor, inputs: int) -> PackedWeight:
        """uint8 [outputs, row bytes] → the packed weight, which shares no memory with a mapped file."""
        if self.name in _GROUPED:
            return _grouped(data, self, inputs)
        if self.name in _TABLES:
            return _codebook(data, self, inputs)
        return RowBlocks(data.contiguous(), self.kind(), inputs=inputs, exclusive=True)

    def kind(self) -> BlockKind:
        """How a kernel reads blocks that stay as they are."""
        if self.name in _TWO_LEVELS:
            fields = _TWO_LEVELS[self.name]
            return BlockKind(self.name, self.elements, self.nbytes, lambda blocks: fields(blocks).weights())
        return BlockKind(self.name, self.elements, self.nbytes, _LATTICES[self.name])


def _pieces(data: Tensor, inputs: int) -> list[Tensor]:
    return list(torch.split(data, max(1, _AT_ONCE // inputs)))


def _grouped(data: Tensor, block: Block, inputs: int) -> PackedWeight:
    read = _GROUPED[block.name]
    parts = [read(piece.reshape(-1, block.nbytes)).grouped(len(piece)) for piece in _pieces(data, inputs)]
    shift = None if parts[0].shift is None else torch.cat([part.shift for part in parts if part.shift is not None])
    return GroupedInteger(
        torch.cat([part.values for part in parts]), torch.cat([part.scale for part in parts]), shift,
        bits=parts[0].bits, inputs=inputs, group=parts[0].group, exclusive=True,
    )  # fmt: skip


def _codebook(data: Tensor, block: Block, inputs: int) -> PackedWeight:
    read, entries = _TABLES[block.name]
    table = torch.tensor(entries, dtype=torch.float32, device=data.device)
    parts: list[Codebook] = []
    for piece in _pieces(data, inputs):
        codes, scale = read(piece.reshape(-1, block.nbytes))
        rows = scale.reshape(len(piece), -1)
        parts.append(Codebook.of(codes.reshape(len(piece), -1), table, rows, bits=4, group=inputs // rows.shape[1]))
    scale = torch.cat([part.scale.view(torch.uint8) for part in parts]).view(parts[0].scale.dtype)
    return Codebook(torch.cat([part.codes for part in parts]), table, scale, bits=4, inputs=inputs, group=parts[0].group, exclusive=True)
