"""Formats whose codes lie in tiles for tensor cores: Marlin, its 2:4 variant and QQQ. Torch-free until packing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, Quantizer, TensorInfo, WeightFormat

from ._held import scaled
from ._names import component, listed, parts_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Outputs and inputs that must divide a layer's: of Marlin and QQQ, of the 2:4 variant.
UNITS = (64, 128)
UNITS_24 = (128, 128)


class Tiled(Quantizer):
    """Layers of one such format; ``build`` makes it from a layer. ``units``: what must divide its outputs and inputs.

    ``held``: bits of the integers in memory, where these are not those of the file. ``factors``: bytes in memory of a tensor of the
    file, by its suffix, relative to those there.
    """

    def __init__(
        self, reader: ConfigReader, build: Callable[[LinearShape], WeightFormat], about: dict[str, Any], units: tuple[int, int] = UNITS,
        held: int | None = None, factors: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.build, self.about, self.units = build, about, units
        self.bits = held or int(about["bits"])
        self.factors = {"B": 1, "s": 1} | dict(factors or {}) | {"workspace": 0}
        self.head = reader.flag("lm_head", False)
        self.ignored = component(listed(reader, "modules_to_not_convert"))

    def linear(self, layer: LinearShape) -> WeightFormat | None:
        """See the contract."""
        if layer.role == "router" or (layer.role == "head" and not self.head) or all(map(self.ignored, parts_of(layer))):
            return None
        for what, sizes, unit in (("outputs", layer.sizes or (layer.outputs,), self.units[0]), ("inputs", (layer.inputs,), self.units[1])):
            for size in sizes:
                if size % unit:
                    names = ", ".join(parts_of(layer))
                    raise ModelFileError(f"{names}: {size} {what} are no multiple of {unit}, which this format's tiles need.")
        return self.build(layer)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return (f"grouped_int {self.bits}",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return scaled(tensor, self.factors)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        return self.about


def read_group(reader: ConfigReader) -> int:
    """-1 (one group) or 128."""
    group = reader.integer("group_size", -1, low=-1)
    if group not in (-1, 128):
        raise reader.complaint("group_size", group, "-1 or 128")
    return group


def refuse_options(reader: ConfigReader) -> None:
    """Zero points and act-order, which these formats cannot hold."""
    for key, wanted in (("sym", True), ("desc_act", False)):
        if reader.flag(key, wanted) is not wanted:
            raise reader.complaint(key, reader.values[key], str(wanted).lower())


class MarlinFormat(WeightFormat):
    """B int32 [inputs / 16, outputs · 2], s float16 [groups, outputs]; ``workspace``, a kernel's scratch, may be stored too.

    W[o, i] = s[i // group, o] · (q[i, o] - 8).
    """

    def __init__(self, group: int, layer: LinearShape) -> None:
        self.group, self.width = layer.inputs if group < 0 else group, layer.inputs

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """See the contract."""
        from ._marlin import code_tensor, scale_tensor

        return code_tensor("B", 4), scale_tensor("s", self.group, self.width), CheckpointTensor("workspace", optional=True)

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Scratch is let go."""
        return tensor.new_empty(0) if suffix == "workspace" else tensor

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        from ._integers import grouped
        from ._marlin import COLUMN_SCALES, GROUPED_SCALES, checked_codes, checked_scale, dense_order, unpack, unpermute_scales

        group = min(self.group, layer.inputs)
        words = checked_codes(layer, tensors, "B", 4, layer.inputs)
        scale = checked_scale(layer, tensors, "s", layer.inputs // group)
        order = COLUMN_SCALES if self.group == self.width else GROUPED_SCALES
        return grouped(unpack(words, 4, dense_order(4)), unpermute_scales(scale, order), None, bits=4, group=group)


class Marlin24Format(WeightFormat):
    """B_24 int32 [inputs / 32, outputs · bits / 2], B_meta int16 [inputs / 32, 2 · outputs], s float16 [groups, outputs].

    Of four inputs two are kept: W = s · (q - 2^(bits-1)) there, else 0. Held with the zeros, in the integers that devices have
    kernels for: 4 bits take 4 instead of 3 per weight, 8 bits 8 instead of 5.
    """

    def __init__(self, bits: int, group: int, layer: LinearShape) -> None:
        self.bits, self.group, self.width = bits, layer.inputs if group < 0 else group, layer.inputs

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """See the contract."""
        from ._marlin import code_tensor, scale_tensor

        return (
            code_tensor("B_24", self.bits, 32), CheckpointTensor("B_meta", 1, 0, output_group=64, output_items=128, input_group=32),
            scale_tensor("s", self.group, self.width), CheckpointTensor("workspace", optional=True),
        )  # fmt: skip

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Scratch is let go."""
        return tensor.new_empty(0) if suffix == "workspace" else tensor

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        import torch

        from ._integers import grouped
        from ._marlin import GROUPED_SCALES_24, checked_codes, checked_scale, sparse_order, unpack, unpermute_positions, unpermute_scales
        from ._tensors import check, require

        group = min(self.group, layer.inputs)
        words = checked_codes(layer, tensors, "B_24", self.bits, layer.inputs // 2)
        meta = check(layer, "B_meta", require(layer, tensors, "B_meta"), (layer.inputs // 32, 2 * layer.outputs), (torch.int16,))
        scale = checked_scale(layer, tensors, "s", layer.inputs // group)
        kept = unpack(words, self.bits, sparse_order(self.bits))
        places = unpermute_positions(meta, layer).long()
        if bool((places[:, 0::2] == places[:, 1::2]).any()):
            raise ValueError("B_meta names one input of four twice")
        places += torch.arange(places.shape[1], device=places.device) // 2 * 4
        codes = torch.full((layer.outputs, layer.inputs), 1 << (self.bits - 1), dtype=torch.uint8, device=kept.device)
        codes.scatter_(1, places, kept)
        scale = scale.t() if self.group == self.width else unpermute_scales(scale, GROUPED_SCALES_24)
        return grouped(codes, scale, None, bits=self.bits, group=group)


class QQQFormat(WeightFormat):
    """B int32 [inputs / 16, outputs · 2], s_channel float32 [1, outputs], s_group float16 [groups, outputs] (empty: one group).

    In groups: W = clamp(round((q - 8) · s_group), -128, 127) · s_channel, held as the 8-bit integers that this gives. One group:
    W = v · 16 · s_channel of the signed nibble v. Activations are rounded to 8 bits per token.
    """

    def __init__(self, group: int, layer: LinearShape) -> None:
        self.group, self.width = layer.inputs if group < 0 else group, layer.inputs
        self.grouped = self.group != self.width

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """See the contract."""
        from ._marlin import code_tensor, scale_tensor

        channel = CheckpointTensor("s_channel", 1, None, output_group=64, output_items=64)
        of_groups = scale_tensor("s_group", self.group, self.width) if self.grouped else CheckpointTensor("s_group", optional=True)
        return code_tensor("B", 4), channel, of_groups, CheckpointTensor("workspace", optional=True)

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Scratch, and the empty scales of one group, are let go."""
        unused = suffix == "workspace" or (suffix == "s_group" and not self.grouped)
        return tensor.new_empty(0) if unused else tensor

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        import torch

        from engine.layers.packed_quantized import ActivationRounding, GroupedInteger, RoundedInputs

        from ._marlin import COLUMN_SCALES, GROUPED_SCALES, checked_codes, checked_scale, qqq_order, unpack, unpermute_scales

        codes = unpack(checked_codes(layer, tensors, "B", 4, layer.inputs), 4, qqq_order(self.grouped))
        channel = unpermute_scales(checked_scale(layer, tensors, "s_channel", 1), COLUMN_SCALES).float().contiguous()
        if self.grouped:
            stored = checked_scale(layer, tensors, "s_group", layer.inputs // self.group)
            scale = unpermute_scales(stored, GROUPED_SCALES).float().repeat_interleave(self.group, 1)
            integers = (scale * (codes.to(torch.int8) - 8)).round_().clamp_(-128, 127).to(torch.int8)
            packed = GroupedInteger.of(integers, channel, bits=8, group=layer.inputs)
        else:
            # A nibble in two's complement: 8 to 15 are -8 to -1.
            packed = GroupedInteger.of((codes ^ 8).to(torch.int8) - 8, channel * 16, bits=4, group=layer.inputs)
        return RoundedInputs(packed, ActivationRounding("int8"))
