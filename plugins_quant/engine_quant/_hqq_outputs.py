"""HQQ's axis 0: the flattened weight in G stretches of equal length; element c of each belongs to group c. Torch-free until packing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._hqq import _UNUSED, codes_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class HQQOutputsFormat(WeightFormat):
    """W_q [⌈G / fields⌉, N · K / G], scale and zero [1, N · K / G], G being the size of a group (0: N).

    Outputs o and o + N / G share their scales where G divides N; else scales begin anew inside of a row, which ``rows`` tells apart.
    """

    whole = True

    def __init__(self, bits: int, group: int, layer: LinearShape) -> None:
        self.bits, self.group = bits, group or layer.outputs
        if layer.outputs * layer.inputs % self.group:
            raise ModelFileError(
                f"{layer.name}: {layer.outputs} × {layer.inputs} weights are no multiple of {self.group} (weight_quant_params.group_size)."
            )

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Nothing of these can be cut."""
        needed = (CheckpointTensor(suffix) for suffix in ("W_q", "scale", "zero"))
        return *needed, *(CheckpointTensor(suffix, optional=True) for suffix in _UNUSED)

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """What is not needed goes."""
        return tensor.new_empty(0) if suffix in _UNUSED else tensor

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        import torch

        from engine.layers.packed_quantized import SharedScales

        from ._integers import SCALES
        from ._tensors import check, require

        columns = layer.outputs * layer.inputs // self.group
        codes = codes_of(layer, require(layer, tensors, "W_q"), self.bits, self.group, columns)
        scale, zero = (check(layer, suffix, require(layer, tensors, suffix), (1, columns), SCALES)[0] for suffix in ("scale", "zero"))
        starts = torch.arange(layer.outputs, device=codes.device) * layer.inputs % columns
        kept, rows = starts.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        places = (kept.unsqueeze(1) + torch.arange(layer.inputs, device=codes.device)) % columns
        return SharedScales.of(codes.reshape(layer.outputs, layer.inputs), scale[places], zero[places], rows.int(), bits=self.bits)
