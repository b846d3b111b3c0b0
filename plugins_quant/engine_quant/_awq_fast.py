"""AutoAWQ's gemv_fast version and llm-awq's packing: int16 words of four outputs' interleaved inputs, zero points multiplied."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.layers.packed_quantized import GroupedInteger
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._awq import ORDERS
from ._awq_rows import leading
from ._integers import SCALES, grouped, signed, unpack_columns
from ._names import parts_of
from ._tensors import check, damaged, require, require_one


class AWQFastFormat(WeightFormat):
    """``qweight`` int16 [N / 4, K], ``scales`` and scaled zeros [at least K / group, N]: W = code · scale + scaled zero.

    AutoAWQ calls scaled zeros ``qzeros``, llm-awq ``scaled_zeros``.

    Words of 64 inputs of four outputs are a run of 256 fields of 4 bits, the lowest of a word first: 64 of the first output, then 64 of
    the next. Of each 32 inputs field 8 b + 4 c + a is input 8 a + 2 b + c. ``words``: the first llm-awq packed as AutoAWQ's gemm
    does, in int32, which such a checkpoint may have instead: ``qweight`` [K, N / 8], ``qzeros`` [K / group, N / 8].
    """

    def __init__(self, group: int, layer: LinearShape, *, words: bool) -> None:
        self.group = layer.inputs if group < 0 else group
        self.words = words
        names = ", ".join(parts_of(layer))
        if layer.inputs % self.group:
            raise ModelFileError(f"{names}: {layer.inputs} inputs are no multiple of {self.group} (quantization_config.group_size).")
        self.axis = None if self.group == layer.inputs else 1

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Axes after :meth:`unfold`."""
        return (
            CheckpointTensor("qweight", 0, 1),
            CheckpointTensor("scales", 0, self.axis, input_group=self.group),
            CheckpointTensor("scaled_zeros", 0, self.axis, input_group=self.group, optional=True),
            CheckpointTensor("qzeros", 0, self.axis, input_group=self.group, optional=True),
        )

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Codes uint8 [outputs, inputs]; scales, scaled zeros and zero points [outputs, groups]."""
        if suffix == "qweight":
            return self._codes(part, tensor)
        groups = part.inputs // self.group
        if suffix == "qzeros" and self.words and not tensor.is_floating_point():
            return unpack_columns(check(part, suffix, tensor, (groups, part.outputs // 8), (torch.int32,)), 4, ORDERS[4])
        kept = leading(part, suffix, check(part, suffix, tensor, dtypes=SCALES), groups, self.group, 0)
        return check(part, suffix, kept, (groups, part.outputs)).t()

    def _codes(self, part: LinearShape, tensor: Tensor) -> Tensor:
        if self.words and tensor.dtype == torch.int32:
            return unpack_columns(check(part, "qweight", tensor, (part.inputs, part.outputs // 8), (torch.int32,)), 4, ORDERS[4])
        if part.outputs % 4 or part.inputs % 64:
            raise damaged(part, "qweight", f"has {part.outputs} outputs and {part.inputs} inputs", "multiples of 4 and 64")
        words = check(part, "qweight", tensor, (part.outputs // 4, part.inputs), (torch.int16,))
        codes = torch.stack([(words >> shift & 15).to(torch.uint8) for shift in range(0, 16, 4)], -1)
        codes = codes.view(part.outputs // 4, part.inputs // 64, 4, 64).transpose(1, 2)
        return codes.reshape(part.outputs, -1, 4, 2, 4).permute(0, 1, 4, 2, 3).reshape(part.outputs, part.inputs)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        group = min(self.group, layer.inputs)
        wanted = (layer.outputs, layer.inputs // group)
        codes, scale = require(layer, tensors, "qweight"), check(layer, "scales", require(layer, tensors, "scales"), wanted).contiguous()
        suffix, zeros = require_one(layer, tensors, ("qzeros", "scaled_zeros"))
        check(layer, suffix, zeros, wanted)
        if not zeros.is_floating_point():
            return grouped(codes, scale, zeros, bits=4, group=group)
        shift = zeros.float() + 8 * scale.float()
        return GroupedInteger.of(signed(codes, 4), scale, shift, bits=4, group=group)
