"""Checkpoints in GPTQ's layout: each layer's configuration and tensors. Torch-free until packing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, PartFormats, Quantizer, TensorInfo, WeightFormat

from ._held import scaled
from ._names import component, listed, parts_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BITS = (2, 3, 4, 8)
#: Where the config says which variant of the layout the tensors have.
_FORMATS = {"gptq": 1, "gptq_v1": 1, "gptq_v2": 0}
_SUFFIXES = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class Settings:
    """How one layer is kept. ``group`` -1: one group. ``offset``: what must be added to stored zero points.

    ``implicit``: zero points are 2^(bits-1) whatever is stored. ``cuts_groups``: a tensor-parallel rank may hold a part of a group.
    """

    bits: int
    group: int
    act_order: bool
    symmetric: bool
    offset: int = 1
    implicit: bool = False
    cuts_groups: bool = False

    @classmethod
    def read(cls, reader: ConfigReader, base: Settings | None = None) -> Settings:
        """From the whole config, or from one override of ``base``."""
        bits = reader.integer("bits", base.bits if base else None, low=1, high=8)
        if bits not in BITS:
            raise reader.complaint("bits", bits, "2, 3, 4 or 8")
        group = reader.integer("group_size", base.group if base else -1, low=-1)
        if group == 0:
            raise reader.complaint("group_size", group, "-1 or a positive number")
        act_order = reader.flag("desc_act", base.act_order if base else False)
        symmetric = reader.flag("sym", base.symmetric if base else True)
        if base is not None:
            implicit = base.implicit and symmetric
            return replace(base, bits=bits, group=group, act_order=act_order, symmetric=symmetric, implicit=implicit)
        return cls(bits, group, act_order, symmetric, _offset(reader))


def _offset(reader: ConfigReader) -> int:
    known = tuple(_FORMATS)
    key = "checkpoint_format" if reader.values.get("checkpoint_format") is not None else "format"
    if reader.text("pack_dtype", "int32") != "int32":
        raise reader.complaint("pack_dtype", reader.values["pack_dtype"], "int32")
    return _FORMATS[reader.text(key, "gptq", known=known)]


class GPTQ(Quantizer):
    """The layers of a GPTQ checkpoint. ``implicit``, ``cuts_groups``: see :class:`Settings`."""

    def __init__(self, config: dict[str, Any], *, implicit: bool = False, cuts_groups: bool = False) -> None:
        reader = ConfigReader(config, "quantization_config.")
        base = Settings.read(reader)
        self.settings = replace(base, implicit=implicit and base.symmetric, cuts_groups=cuts_groups)
        self.head = reader.flag("lm_head", False)
        self.rules = _rules(reader, self.settings)
        self.ignored = component(listed(reader, "modules_to_not_convert"))

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        found = [self._settings(name, layer) for name in parts_of(layer)]
        if len(set(found)) == 1:
            return None if found[0] is None else GPTQFormat(found[0], layer)
        parts = [LinearShape(name, layer.inputs, size) for name, size in zip(layer.parts, layer.sizes, strict=True)]
        return PartFormats(tuple(None if each is None else GPTQFormat(each, part) for each, part in zip(found, parts, strict=True)))

    def _settings(self, name: str, layer: LinearShape) -> Settings | None:
        """Those of one module: the first rule that matches, else the config's own; None: not quantized."""
        for pattern, settings in self.rules:
            if pattern.match(name):
                return settings
        left = layer.role == "router" or (layer.role == "head" and not self.head) or self.ignored(name)
        return None if left else self.settings

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        found = {self.settings.bits} | {settings.bits for _, settings in self.rules if settings is not None}
        return tuple(f"grouped_int {bits}" for bits in sorted(found))

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        settings = self._settings(tensor.name.rpartition(".")[0], LinearShape("", 0, 0)) or self.settings
        if settings.implicit or settings.symmetric:
            zeros, scale = 0.0, 1.0
        else:
            # The shift is a float32 each, and scales beside it are.
            zeros, scale = 32 / settings.bits, 2.0
        return scaled(tensor, {"qweight": 1, "qzeros": zeros, "scales": scale, "g_idx": 2 if settings.act_order else 0})

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        found: dict[str, Any] = {"bits": self.settings.bits, "group": self.settings.group if self.settings.group > 0 else "all inputs"}
        found["zero points"] = "none" if self.settings.implicit or self.settings.symmetric else "one per group"
        if self.settings.act_order:
            found["order of inputs"] = "by activation"
        if self.rules:
            found["rules"] = len(self.rules)
        return found


def _rules(reader: ConfigReader, base: Settings) -> list[tuple[re.Pattern[str], Settings | None]]:
    """GPTQModel's ``dynamic``: patterns of module names, ``-:`` not quantized, ``+:`` or nothing: quantized otherwise than the rest."""
    table = reader.table("dynamic")
    rules: list[tuple[re.Pattern[str], Settings | None]] = []
    for pattern, values in (table.values if table else {}).items():
        try:
            compiled = re.compile(pattern.removeprefix("-:").removeprefix("+:"))
        except re.error as error:
            cause = f"config.json: quantization_config.dynamic has {pattern!r}, which is no regular expression: {error}."
            raise ModelFileError(cause) from error
        if pattern.startswith("-:"):
            rules.append((compiled, None))
            continue
        if not isinstance(values, dict):
            raise reader.complaint("dynamic", values, "an object for each pattern")
        rules.append((compiled, Settings.read(ConfigReader(values, f"quantization_config.dynamic.{pattern}."), base)))
    return rules


class GPTQFormat(WeightFormat):
    """qweight int32 [inputs · bits / 32, outputs], qzeros int32 [groups, outputs · bits / 32], scales [groups, outputs], g_idx [inputs].

    W[o, i] = scales[g, o] · (q[i, o] - zero[g, o]) with g = g_idx[i], without act-order i // group.
    """

    def __init__(self, settings: Settings, layer: LinearShape) -> None:
        self.settings = settings
        self.groups = 1 if settings.group < 0 else -(-layer.inputs // settings.group)
        self.group = layer.inputs if settings.group < 0 else settings.group
        # One group has no order to speak of. Inputs that belong to groups by an index may be cut anywhere.
        self.act_order = (settings.act_order or settings.cuts_groups) and self.groups > 1
        _check_sizes(settings, layer, self.group)

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """With act-order a rank needs the scales of all groups, else those of its own inputs."""
        count, words = (32, 3) if self.settings.bits == 3 else (32 // self.settings.bits, 1)
        axis = None if self.act_order or self.groups == 1 else 0
        zeros = self.settings.implicit
        return (
            CheckpointTensor("qweight", 1, 0, input_group=count, input_items=words),
            CheckpointTensor("qzeros", 1, axis, output_group=count, output_items=words, input_group=self.group, optional=zeros),
            CheckpointTensor("scales", 1, axis, input_group=self.group),
            CheckpointTensor("g_idx", None, 0, optional=not self.act_order),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        from ._gptq_pack import pack

        return pack(self.settings, layer, tensors, groups=self.groups, group=self.group, act_order=self.act_order)


def _check_sizes(settings: Settings, layer: LinearShape, group: int) -> None:
    count = 32 if settings.bits == 3 else 32 // settings.bits
    names = ", ".join(parts_of(layer))
    if layer.inputs % count or layer.inputs % group:
        unit = group if layer.inputs % group else count
        what = "quantization_config.group_size" if unit == group else f"{settings.bits}-bit packing in units"
        raise ModelFileError(f"{names}: {layer.inputs} inputs are no multiple of {unit} ({what}).")
    for size in layer.sizes or (layer.outputs,):
        if size % count:
            raise ModelFileError(f"{names}: {size} outputs are no multiple of {count}; {settings.bits}-bit zero points need it.")
