"""2:4 sparse weights of compressed-tensors: kept values with a bit mask, and Marlin-24's tiles."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.layers.packed import DensePacked
from engine.layers.packed_quantized import Sparse24
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._compressed_config import Numbers
from ._floats import FLOAT8, PLAIN, Float8Format
from ._inputs import Inputs, wrapped
from ._integers import grouped
from ._marlin import GROUPED_SCALES_24, code_tensor, sparse_order, unpack, unpermute_positions, unpermute_scales
from ._tensors import check, damaged, require


class BitmaskFormat(WeightFormat):
    """``compressed`` [N, K / 2]: the kept values in order; ``bitmask`` uint8 [N, K / 8]: which inputs they are, lowest bit first.

    ``full`` and ``kept`` read the values' scales: the first as tensors of the layer, the second as those of the kept half. None: the
    values are plain floats.
    """

    def __init__(self, full: WeightFormat | None, kept: WeightFormat | None, inputs: Inputs | None) -> None:
        self.full, self.kept, self.inputs = full, kept, inputs

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Values, mask, and the scales of both weights and activations."""
        scales = () if self.full is None else (each for each in self.full.tensors() if each.suffix != "weight")
        return (
            CheckpointTensor("compressed", 0, 1, 1, 2),
            CheckpointTensor("bitmask", 0, 1, 1, 8),
            CheckpointTensor("shape", optional=True),
            *scales,
            *(self.inputs.tensors() if self.inputs else ()),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        half = msgspec.structs.replace(layer, inputs=layer.inputs // 2)
        values = check(layer, "compressed", require(layer, tensors, "compressed"), (layer.outputs, half.inputs))
        positions = self._positions(layer, tensors)
        if self.kept is None:
            check(layer, "compressed", values, dtypes=PLAIN)
            packed: PackedWeight = DensePacked(values.to(dtype, copy=True), exclusive=True)
        else:
            check(layer, "compressed", values, dtypes=FLOAT8 if isinstance(self.kept, Float8Format) else (torch.int8,))
            packed = self.kept.pack(half, {**tensors, "weight": values}, dtype)
        return wrapped(self.inputs, Sparse24.of(packed, positions), layer, tensors)

    def _positions(self, layer: LinearShape, tensors: Mapping[str, Tensor]) -> Tensor:
        mask = require(layer, tensors, "bitmask")
        check(layer, "bitmask", mask, (layer.outputs, -(-layer.inputs // 8)), (torch.uint8,))
        bits = torch.stack([(mask >> index) & 1 for index in range(8)], -1).flatten(1)[:, : layer.inputs]
        fours = bits.view(layer.outputs, -1, 4)
        if not bool((fours.sum(-1) == 2).all()):
            raise damaged(layer, "bitmask", "does not keep two of every four inputs", "2:4 sparsity")
        return fours.nonzero()[:, 2].view(layer.outputs, -1).to(torch.uint8)


class Marlin24Format(WeightFormat):
    """``weight_packed`` int32 [K / 32, N · bits / 2], ``scale_packed`` [K / group or 1, N], ``meta`` int16 [K / 32, 2 N]."""

    def __init__(self, numbers: Numbers) -> None:
        self.bits, self.group = numbers.bits, numbers.group

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Codes, scales and places."""
        columns = 0 if self.group else None
        return (
            code_tensor("weight_packed", self.bits, 32),
            CheckpointTensor("scale_packed", 1, columns, output_group=64, output_items=64, input_group=self.group or 1),
            CheckpointTensor("meta", 1, 0, output_group=64, output_items=128, input_group=32),
            CheckpointTensor("weight_shape", optional=True),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        words, scale, meta = (require(layer, tensors, name) for name in ("weight_packed", "scale_packed", "meta"))
        if layer.outputs % 64 or layer.inputs % 32:
            raise damaged(layer, "weight_packed", f"stands for {layer.outputs} × {layer.inputs}", "multiples of 64 × 32")
        check(layer, "weight_packed", words, (layer.inputs // 32, layer.outputs * self.bits // 2), (torch.int32,))
        check(layer, "meta", meta, (layer.inputs // 32, 2 * layer.outputs), (torch.int16,))
        group = self.group or layer.inputs
        check(layer, "scale_packed", scale, (layer.inputs // group, layer.outputs), PLAIN)
        codes = unpack(words, self.bits, sparse_order(self.bits))
        scales = unpermute_scales(scale, GROUPED_SCALES_24) if self.group else scale.t()
        kept = grouped(codes, scales.contiguous(), None, bits=self.bits, group=group // 2)
        return Sparse24.of(kept, unpermute_positions(meta, layer))


def marlin24(numbers: Numbers, where: str) -> WeightFormat:
    """Marlin-24 for integers of 4 or 8 bits without zero points."""
    if numbers.kind != "int" or numbers.bits not in (4, 8) or not numbers.symmetric:
        found = f"{numbers.kind} weights of {numbers.bits} bits"
        raise ModelFileError(
            f"config.json: {where} has {found} as marlin-24, which holds symmetric int of 4 or 8 bits.",
            fix="a checkpoint of another format",
        )
    return Marlin24Format(numbers)
