"""AutoRound's quantization_config in the words of the formats that it packs in. Torch-free."""

from __future__ import annotations

import re
from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, Quantizer, TensorInfo, WeightFormat

from ._awq import AWQ
from ._gptq import GPTQ
from ._names import listed, parts_of

#: Packing → (whose layout, whether zero points are stored less 1).
PACKINGS = {
    "auto_round:auto_gptq": ("gptq", True), "auto_round:gptq": ("gptq", True), "auto_round:gptqmodel": ("gptq", False),
    "auto_round": ("gptq", False), "auto_round:auto_awq": ("awq", False), "auto_round:awq": ("awq", False),
    "auto_round:llm_compressor": ("compressed-tensors", False),
}  # fmt: skip
#: (kind, bits) of floats → the format of compressed-tensors.
_FLOATS = {("mx_fp", 4): "mxfp4-pack-quantized", ("nv_fp", 4): "nvfp4-pack-quantized", ("mx_fp", 8): "mxfp8-quantized"}
_PLAIN_BITS = 16


class AutoRound(Quantizer):
    """``inner`` reads the layers; only those below one of ``blocks`` are quantized (none named: all), and those that ``named`` names."""

    def __init__(self, inner: Quantizer, blocks: tuple[str, ...], named: frozenset[str]) -> None:
        self.inner, self.blocks, self.named = inner, blocks, named

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        inside = not self.blocks or any(f"{name}.".startswith(f"{block}.") for name in parts_of(layer) for block in self.blocks)
        return self.inner.linear(layer) if inside or any(name in self.named for name in parts_of(layer)) else None

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return self.inner.layouts()

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return self.inner.held(tensor)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        return self.inner.describe()


def read_auto_round(config: dict[str, Any]) -> AutoRound:
    """Raises :class:`engine.errors.ModelFileError` naming the key that cannot be read."""
    reader = ConfigReader(config, "quantization_config.")
    packing = _packing(reader)
    extra = reader.table("extra_config")
    rules = {name: entry for name in (extra.values if extra else {}) if extra and (entry := extra.table(name)) is not None}
    layout, less = PACKINGS[packing]
    inner: Quantizer
    match layout:
        case "gptq":
            inner = _gptq(reader, rules, less)
        case "awq":
            inner = _awq(reader, rules)
        case _:
            inner = _floats(reader, rules)
    return AutoRound(inner, _blocks(reader), frozenset(name for name, rule in rules.items() if not _plain(rule)))


def _packing(reader: ConfigReader) -> str:
    """``packing_format``; configs before there was one name what multiplies (``backend``), and pack as GPTQ but for AWQ's kernels."""
    if reader.values.get("packing_format") is not None:
        return reader.text("packing_format", known=tuple(PACKINGS))
    return "auto_round:auto_awq" if "awq" in reader.text("backend", "auto") else "auto_round:auto_gptq"


def _plain(rule: ConfigReader) -> bool:
    """Whether a layer's own rule leaves it in 16 bits or more."""
    return (rule.optional_integer("bits") or 0) >= _PLAIN_BITS


def _blocks(reader: ConfigReader) -> tuple[str, ...]:
    """``block_name_to_quantize`` (or ``to_quant_block_names``): names with commas between, or a list."""
    for key in ("block_name_to_quantize", "to_quant_block_names"):
        value = reader.values.get(key)
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        if value is not None:
            return tuple(listed(reader, key))
    return ()


def _gptq(reader: ConfigReader, rules: dict[str, ConfigReader], less: bool) -> Quantizer:
    own = {key: reader.values[key] for key in ("bits", "group_size", "sym") if key in reader.values}
    dynamic: dict[str, Any] = {}
    for name, rule in rules.items():
        # a name, or an expression, as the producer matches them
        pattern = name if any(mark in name for mark in "*+[(|^$\\") else f"{re.escape(name)}$"
        keys = {key: rule.values[key] for key in ("bits", "group_size", "sym") if key in rule.values}
        dynamic[f"-:{pattern}" if _plain(rule) else pattern] = keys
    heads = any(name.endswith("lm_head") and not _plain(rule) for name, rule in rules.items())
    made = own | {"dynamic": dynamic, "checkpoint_format": "gptq" if less else "gptq_v2", "lm_head": heads}
    # Symmetric ones have the middle for a zero point, however it is stored.
    return GPTQ(made, implicit=True)


def _awq(reader: ConfigReader, rules: dict[str, ConfigReader]) -> Quantizer:
    own = {key: reader.values[key] for key in ("bits", "group_size") if key in reader.values}
    plain = [f"{name}." for name, rule in rules.items() if _plain(rule)]
    for rule in (rule for rule in rules.values() if not _plain(rule)):
        for key in ("bits", "group_size", "sym"):
            found, common = rule.values.get(key), reader.values.get(key)
            if found is not None and found != common:
                raise rule.complaint(key, found, f"{common!r}, as in all layers: AWQ's packing has no other")
    return AWQ(own | {"zero_point": not reader.flag("sym", True), "version": "gemm", "modules_to_not_convert": plain})


def _floats(reader: ConfigReader, rules: dict[str, ConfigReader]) -> Quantizer:
    from ._compressed_config import read_config
    from .compressed_tensors import CompressedTensors

    bits, group = reader.integer("bits"), reader.integer("group_size")
    format = _FLOATS.get((reader.text("data_type").split("_with")[0], bits))
    if format is None:
        raise reader.complaint("data_type", reader.values["data_type"], "mx_fp of 4 or 8 bits, or nv_fp of 4")
    strategy = "tensor_group" if format.startswith("nv") else "group"
    scale = {} if format.startswith("nv") else {"scale_dtype": "torch.uint8"}
    numbers = {"num_bits": bits, "type": "float", "symmetric": True, "strategy": strategy, "group_size": group} | scale
    rounded = (reader.optional_integer("act_bits") or _PLAIN_BITS) < _PLAIN_BITS
    dynamic: Any = "local" if format.startswith("nv") else True
    inputs = numbers | {"num_bits": reader.optional_integer("act_bits"), "dynamic": dynamic} if rounded else None
    plain = [name for name, rule in rules.items() if _plain(rule)]
    groups = {"all": {"targets": ["Linear"], "weights": numbers, "input_activations": inputs}}
    return CompressedTensors(read_config({"format": format, "config_groups": groups, "ignore": [*plain, "lm_head"]}))
