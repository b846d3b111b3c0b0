"""Integer weights of compressed-tensors: one per byte, or packed densely into 32-bit words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from engine.layers.packed_quantized import GroupedInteger
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._compressed_config import Numbers
from ._floats import smaller
from ._inputs import Inputs, wrapped
from ._integers import grouped_by_index, signed, unpack_words
from ._tensors import check, damaged, per_output, plain, require, sizes_of


class IntegerFormat(WeightFormat):
    """``weight`` int8 [N, K], or ``weight_packed`` int32 [N, ⌈K · bits / 32⌉] (lowest bits first, stored as value + 2^(bits-1)).

    ``weight_scale`` [1], [N, 1] or [N, K / group]; ``weight_zero_point`` in the scale's shape, int8 beside bytes, packed along the
    outputs beside words; weight = (value − zero point) · scale. ``weight_g_idx`` int32 [K]: the group of each column.
    """

    def __init__(self, numbers: Numbers, inputs: Inputs | None, *, packed: bool) -> None:
        self.numbers, self.inputs, self.packed = numbers, inputs, packed
        self.bits = numbers.bits

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Values, scales, zero points, groups of columns, and the activations' static scale."""
        outputs, columns = self._axes()
        scale = CheckpointTensor("weight_scale", outputs, columns, 1, self.numbers.group or 1, optional=True, spreads=True)
        found = [self._values(), scale]
        if not self.numbers.symmetric or not self.packed:
            found.append(self._zeros(outputs, columns))
        if self.numbers.ordered:
            found.append(CheckpointTensor("weight_g_idx", None, 0, optional=True))
        if self.packed:
            found.append(CheckpointTensor("weight_shape", optional=True))
        return (*found, *(self.inputs.tensors() if self.inputs else ()))

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        scale = self._scale(layer, tensors)
        zeros = self._zero_points(layer, tensors, scale)
        if "weight_g_idx" in tensors:
            packed = self._by_index(layer, tensors, scale, zeros)
        else:
            most = self.numbers.group or layer.inputs
            group = smaller(most, (layer.inputs,), scale.shape[1]) or most
            check(layer, "weight_scale", scale, (layer.outputs, -(-layer.inputs // group)))
            # The zero point of 8-bit values may be 2^24 times the shift's last place: float32 alone holds the product.
            shift = None if zeros is None else -zeros.float() * scale.float()
            values = self._stored(layer, tensors)
            packed = GroupedInteger(values, scale, shift, bits=self.bits, inputs=layer.inputs, group=group, exact=self.inputs is not None)
        return wrapped(self.inputs, packed, layer, tensors)

    def _axes(self) -> tuple[int | None, int | None]:
        outputs = None if self.numbers.strategy == "tensor" else 0
        # Columns in any order may need the scales of all groups.
        return outputs, 1 if self.numbers.group and not self.numbers.ordered else None

    def _values(self) -> CheckpointTensor:
        if not self.packed:
            return CheckpointTensor("weight", 0, 1, optional=True)
        unit, words = words_of(self.bits)
        return CheckpointTensor("weight_packed", 0, 1, 1, unit, optional=True, input_items=words)

    def _zeros(self, outputs: int | None, columns: int | None) -> CheckpointTensor:
        group = self.numbers.group or 1
        if not self.packed or outputs is None:
            return CheckpointTensor("weight_zero_point", outputs, columns, 1, group, optional=True, spreads=True)
        unit, words = words_of(self.bits)
        return CheckpointTensor("weight_zero_point", 0, columns, unit, group, optional=True, output_items=words, spreads=True)

    def _scale(self, layer: LinearShape, tensors: Mapping[str, Tensor]) -> Tensor:
        found = require(layer, tensors, "weight_scale")
        if not found.is_floating_point():
            raise damaged(layer, "weight_scale", f"holds {plain(found.dtype)}", "floats")
        if self.numbers.strategy == "tensor":
            return per_output(layer, "weight_scale", found).unsqueeze(1)
        scale = found.unsqueeze(1) if found.dim() == 1 else found
        if scale.dim() != 2 or len(scale) != layer.outputs or not scale.shape[1]:
            raise damaged(layer, "weight_scale", f"has shape {list(found.shape)}", f"[{layer.outputs}, groups]")
        return scale

    def _zero_points(self, layer: LinearShape, tensors: Mapping[str, Tensor], scale: Tensor) -> Tensor | None:
        """Signed, in the scale's shape; None for symmetric weights."""
        if self.numbers.symmetric:
            if "weight_zero_point" in tensors and bool(tensors["weight_zero_point"].any()):
                raise damaged(layer, "weight_zero_point", "is not 0", "symmetric weights")
            return None
        found = require(layer, tensors, "weight_zero_point")
        if self.numbers.strategy == "tensor":
            return per_output(layer, "weight_zero_point", found, integers=True).unsqueeze(1)
        if not self.packed:
            return check(layer, "weight_zero_point", found.reshape(len(found), -1), scale.shape, (torch.int8, torch.int32))
        check(layer, "weight_zero_point", found, dtypes=(torch.int32,))
        parts, start = [], 0
        for size in sizes_of(layer):
            unit, items = words_of(self.bits)
            words = -(-size // unit) * items
            piece = check(layer, "weight_zero_point", found[start : start + words], (words, scale.shape[1]))
            parts.append(unpack_words(whole_words(piece, self.bits), self.bits)[:size])
            start += words
        return signed(torch.cat(parts), self.bits)

    def _by_index(self, layer: LinearShape, tensors: Mapping[str, Tensor], scale: Tensor, zeros: Tensor | None) -> PackedWeight:
        index = check(layer, "weight_g_idx", tensors["weight_g_idx"], dtypes=(torch.int32, torch.int64))
        rows = index.reshape(-1, layer.inputs)
        check(layer, "weight_g_idx", index.reshape(-1), (len(rows) * layer.inputs,))
        if not bool((rows == rows[0]).all()):
            raise damaged(layer, "weight_g_idx", "differs between layers that share their inputs", "the same order in all of them")
        codes = (self._integers(layer, tensors).to(torch.int16) + (1 << (self.bits - 1))).to(torch.uint8)
        unsigned = None if zeros is None else zeros.to(torch.int16) + (1 << (self.bits - 1))
        return grouped_by_index(layer, codes, scale, unsigned, rows[0], bits=self.bits, group=self.numbers.group)

    def _stored(self, layer: LinearShape, tensors: Mapping[str, Tensor]) -> Tensor:
        """The values as :class:`GroupedInteger` keeps them."""
        if self.packed and self.bits in (1, 2, 4):
            # The canonical planes of these are the very bytes of the words.
            words = self._words(layer, tensors)
            return words.contiguous().view(torch.uint8)[:, : -(-layer.inputs * self.bits // 8)]
        integers = self._integers(layer, tensors)
        if self.bits == 8:
            return integers
        low = 1 << (self.bits - 1)
        if not self.packed and integers.numel() and not -low <= int(integers.min()) <= int(integers.max()) < low:
            raise damaged(layer, "weight", f"holds {int(integers.min())} to {int(integers.max())}", f"{self.bits}-bit values")
        return GroupedInteger.of(integers, torch.ones(len(integers), 1), bits=self.bits, group=layer.inputs).values

    def _integers(self, layer: LinearShape, tensors: Mapping[str, Tensor]) -> Tensor:
        """int8 [outputs, inputs]."""
        if not self.packed:
            return check(layer, "weight", require(layer, tensors, "weight"), (layer.outputs, layer.inputs), (torch.int8,))
        words = self._words(layer, tensors)
        if self.bits == 8:
            return (words.contiguous().view(torch.uint8)[:, : layer.inputs] ^ 128).view(torch.int8)
        return signed(unpack_words(whole_words(words.t(), self.bits), self.bits)[: layer.inputs].t(), self.bits)

    def _words(self, layer: LinearShape, tensors: Mapping[str, Tensor]) -> Tensor:
        unit, items = words_of(self.bits)
        words = require(layer, tensors, "weight_packed")
        return check(layer, "weight_packed", words, (layer.outputs, -(-layer.inputs // unit) * items), (torch.int32,))


def words_of(bits: int) -> tuple[int, int]:
    """Values and the 32-bit words that hold exactly them."""
    return (32 // bits, 1) if 32 % bits == 0 else (32, bits)


def whole_words(words: Tensor, bits: int) -> Tensor:
    """Words [n, columns], filled up to whole multiples of what :func:`words_of` says."""
    return functional.pad(words, (0, 0, 0, -len(words) % words_of(bits)[1])).contiguous()
