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
#: Where blocks that stay as they are have float16 scales.
_HALVES: dict[str, tuple[int, ...]] = {
    "q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,), "iq1_s": (0,), "iq2_xxs": (0,), "iq2_xs": (0,),
    "iq2_s": (0,), "iq3_xxs": (0,), "iq3_s": (0,),
}  # fmt: skip
#: Weights that are unpacked at a time: what packing needs beside the result.
_AT_ONCE = 1 << 19


class Block(NamedTuple):
    """A block type by its lower-case name: elements and bytes."""

    name: str
    elements: int
    nbytes: int

    def pack(self, data: Tensor, inputs: int) -> PackedWeight:
        """uint8 [outputs, row bytes] → the packed weight, which shares no memory with a mapped file."""
        if self.name in _GROUPED:
            read = _GROUPED[self.name]
            return _grouped(data, inputs, lambda piece: read(piece.reshape(-1, self.nbytes)).grouped(len(piece)))
        if self.name in _TABLES:
            return _codebook(data, self, inputs)
        return RowBlocks(data.clone(), self.kind(), inputs=inputs, exclusive=True)

    def kind(self) -> BlockKind:
        """How a kernel reads blocks that stay as they are."""
        if self.name not in _TWO_LEVELS:
            return BlockKind(self.name, self.elements, self.nbytes, _LATTICES[self.name], scales=self._scales)
        fields = _TWO_LEVELS[self.name]
        nearest = self._nearest if self.name in ("q4_k", "q5_k", "q6_k") else None
        return BlockKind(self.name, self.elements, self.nbytes, lambda blocks: fields(blocks).weights(), nearest, self._scales)

    def _scales(self, blocks: Tensor) -> Tensor:
        places = _HALVES.get(self.name)
        return lattices.iq1_m_scale(blocks) if places is None else torch.cat([integers.half(blocks, place) for place in places], 1)

    def _nearest(self, data: Tensor) -> GroupedInteger:
        """4 and 5 bits: the same integers, scales rounded to float16. 6 bits, which have a scale per 16: 8 bits with one per 32."""
        fields, inputs = _TWO_LEVELS[self.name], data.shape[1] // self.nbytes * self.elements

        def one(piece: Tensor) -> GroupedInteger:
            found = fields(piece.reshape(-1, self.nbytes))
            return found.grouped(len(piece), torch.float16) if found.group == 32 else _eight_bits(found.weights().reshape(len(piece), -1))

        return _grouped(data, inputs, one)


def _eight_bits(weight: Tensor) -> GroupedInteger:
    """Rounded to 8 bits with a float16 scale per 32 inputs."""
    groups = weight.view(len(weight), -1, 32)
    scale = (groups.abs().amax(-1) / 127).half()
    values = torch.where(scale.unsqueeze(-1) == 0, 0, groups / scale.float().unsqueeze(-1)).round_().clamp_(-127, 127).to(torch.int8)
    return GroupedInteger(values.flatten(1), scale, bits=8, inputs=weight.shape[1], group=32, exclusive=True)


def _grouped(data: Tensor, inputs: int, pack: Callable[[Tensor], GroupedInteger]) -> GroupedInteger:
    """Some rows at a time, into the tensors of the whole."""
    whole: GroupedInteger | None = None
    start = 0
    for piece in torch.split(data, max(1, _AT_ONCE // inputs)):
        part = pack(piece)
        if whole is None:
            whole = _like(part, len(data))
        for target, source in zip((whole.values, whole.scale, whole.shift), (part.values, part.scale, part.shift), strict=True):
            if target is not None and source is not None:
                target[start : start + len(piece)] = source
        start += len(piece)
    if whole is None:
        raise ValueError("a weight without outputs")
    return whole


def _like(part: GroupedInteger, outputs: int) -> GroupedInteger:
    """The same layout with room for ``outputs`` rows."""
    values, scale = (each.new_empty(outputs, each.shape[1]) for each in (part.values, part.scale))
    shift = None if part.shift is None else part.shift.new_empty(outputs, part.shift.shape[1])
    return GroupedInteger(values, scale, shift, bits=part.bits, inputs=part.inputs, group=part.group, exclusive=True)


def _codebook(data: Tensor, block: Block, inputs: int) -> PackedWeight:
    read, entries = _TABLES[block.name]
    table = torch.tensor(entries, dtype=torch.float32, device=data.device)
    parts: list[Codebook] = []
    for piece in torch.split(data, max(1, _AT_ONCE // inputs)):
        codes, scale = read(piece.reshape(-1, block.nbytes))
        rows = scale.reshape(len(piece), -1)
        parts.append(Codebook.of(codes.reshape(len(piece), -1), table, rows, bits=4, group=inputs // rows.shape[1]))
    scale = torch.cat([part.scale.view(torch.uint8) for part in parts]).view(parts[0].scale.dtype)
    return Codebook(torch.cat([part.codes for part in parts]), table, scale, bits=4, inputs=inputs, group=parts[0].group, exclusive=True)
