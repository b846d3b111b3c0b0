"""HQQ checkpoints: codes of whole groups interleaved over the layer, float zero points. Torch-free until packing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, PartFormats, Quantizer, TensorInfo, WeightFormat

from ._held import numbers, scaled
from ._names import component, listed, parts_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Bits → (bits of a field, fields to a word, bits of a word). 5 and 6 bits are stored as bytes.
PACKINGS = {8: (8, 1, 8), 6: (8, 1, 8), 5: (8, 1, 8), 4: (4, 2, 8), 3: (3, 10, 32), 2: (2, 4, 8), 1: (1, 8, 8)}
#: What is stored beside and says nothing that the configuration does not.
_UNUSED = (
    "axis", "channel_wise", "compute_dtype", "encoded_state_dict", "group_size", "nbits", "offload_meta", "optimize", "packing",
    "quant_scale", "quant_zero", "round_zero", "shape", "stores_quant_config", "unpack_view_dtype", "view_as_float",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """``group`` 0: all inputs, or with ``axis`` 0 all outputs."""

    bits: int
    group: int
    axis: int = 1

    @classmethod
    def read(cls, reader: ConfigReader) -> Settings:
        """From ``weight_quant_params``."""
        bits = reader.integer("nbits", 4)
        if bits not in PACKINGS:
            raise reader.complaint("nbits", bits, "1, 2, 3, 4, 5, 6 or 8")
        axis = reader.integer("axis", 0, low=0)
        if axis > 1:
            raise reader.complaint("axis", axis, "0 (groups along the outputs) or 1 (along the inputs)")
        return cls(bits, reader.optional_integer("group_size") or 0, axis)


class HQQ(Quantizer):
    """The layers of an HQQ checkpoint; ``quant_config`` is for all layers, or has an entry for each kind of them."""

    def __init__(self, config: dict[str, Any]) -> None:
        reader = ConfigReader(config, "quantization_config.")
        table = reader.table("quant_config")
        if table is None:
            raise ModelFileError("config.json: quantization_config.quant_config is missing.")
        self.common = _settings(table) if "weight_quant_params" in table.values else None
        self.kinds: dict[str, Settings] = {}
        if self.common is None:
            entries = {key: entry for key in table.values if (entry := table.table(key)) is not None}
            self.kinds = {key: _settings(entry) for key, entry in entries.items()}
        skipped = listed(reader, "skip_modules") if config.get("skip_modules") is not None else ["lm_head"]
        self.skipped = component(skipped)

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        if layer.role == "router":
            return None
        found = [self._settings(name) for name in parts_of(layer)]
        if all(each == found[0] for each in found) and (found[0] is None or found[0].axis or len(found) == 1):
            return None if found[0] is None else _format(found[0], layer)
        parts = [LinearShape(name, layer.inputs, size) for name, size in zip(layer.parts, layer.sizes, strict=True)]
        return PartFormats(tuple(None if each is None else _format(each, part) for each, part in zip(found, parts, strict=True)))

    def _settings(self, name: str) -> Settings | None:
        if self.skipped(name):
            return None
        return self.common or next((settings for kind, settings in self.kinds.items() if name.endswith(f".{kind}")), None)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        found = {self.common} if self.common is not None else set(self.kinds.values())
        return tuple(sorted({f"{'grouped_int' if each.axis else 'shared_scales'} {each.bits}" for each in found}))

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        layer, _, suffix = tensor.name.rpartition(".")
        settings = self._settings(layer)
        if settings is None:
            return None
        if suffix in ("scale", "zero"):
            return numbers(tensor, 4) if settings.axis else tensor.nbytes
        _, fields, word = PACKINGS[settings.bits]
        # 1 bit takes two in memory.
        values = max(settings.bits, 2) * fields / word
        return scaled(tensor, {"W_q": values} | dict.fromkeys(_UNUSED, 0))

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        if self.common is None:
            return {"bits": ", ".join(f"{each.bits} ({kind})" for kind, each in self.kinds.items())}
        along = "inputs" if self.common.axis else "outputs"
        group = f"{self.common.group or 'all'} {along}"
        return {"bits": self.common.bits, "group": group, "zero points": "one per group, floats"}


def _settings(table: ConfigReader) -> Settings:
    for key in ("scale_quant_params", "zero_quant_params"):
        if table.values.get(key):
            raise table.complaint(key, table.values[key], "null (scales and zero points that are quantized themselves are not read)")
    params = table.table("weight_quant_params")
    if params is None:
        raise table.complaint("weight_quant_params", None, "an object")
    return Settings.read(params)


def _format(settings: Settings, layer: LinearShape) -> WeightFormat:
    if settings.axis:
        return HQQFormat(settings, layer)
    from ._hqq_outputs import HQQOutputsFormat

    return HQQOutputsFormat(settings.bits, settings.group, layer)


class HQQFormat(WeightFormat):
    """W_q [⌈rows / fields⌉, group], scale and zero [rows, 1], where a row is one group of one output, outputs first.

    Field f of a word, counted from its highest bits, belongs to the f-th stretch of rows. W = (q - zero) · scale. ``W_q`` may be
    stored under a float dtype of the same bits.
    """

    def __init__(self, settings: Settings, layer: LinearShape) -> None:
        self.bits, self.group = settings.bits, settings.group or layer.inputs
        # One group is every rank's.
        self.axis = None if self.group == layer.inputs else 1
        if layer.inputs % self.group:
            names = ", ".join(parts_of(layer))
            raise ModelFileError(f"{names}: {layer.inputs} inputs are no multiple of {self.group} (weight_quant_params.group_size).")

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Axes after :meth:`unfold`."""
        numbers = [CheckpointTensor(suffix, 0, self.axis, input_group=self.group) for suffix in ("scale", "zero")]
        return CheckpointTensor("W_q", 0, 1), *numbers, *(CheckpointTensor(suffix, optional=True) for suffix in _UNUSED)

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """Codes uint8 [outputs, inputs]; scales and zero points [outputs, groups]."""
        if suffix in _UNUSED:
            return tensor.new_empty(0)
        from ._integers import SCALES
        from ._tensors import check

        rows = part.outputs * part.inputs // self.group
        if suffix != "W_q":
            return check(part, suffix, tensor, (rows, 1), SCALES).view(part.outputs, -1)
        return codes_of(part, tensor, self.bits, rows, self.group).view(part.outputs, part.inputs)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        from ._integers import grouped

        return grouped(tensors["W_q"], tensors["scale"], tensors["zero"], bits=self.bits, group=min(self.group, layer.inputs))


def codes_of(part: LinearShape, tensor: Tensor, bits: int, rows: int, columns: int) -> Tensor:
    """W_q [⌈rows / fields⌉, columns] unpacked along its first axis: uint8 [rows, columns]."""
    import torch

    from ._tensors import check

    width, fields, word = PACKINGS[bits]
    dtype = torch.uint8 if word == 8 else torch.int32
    words = tensor.contiguous().view(dtype) if tensor.is_floating_point() else tensor
    check(part, "W_q", words, (-(-rows // fields), columns), (dtype,))
    mask = (1 << width) - 1
    return torch.cat([((words >> (width * (fields - 1 - field))) & mask).to(torch.uint8) for field in range(fields)])[:rows]
