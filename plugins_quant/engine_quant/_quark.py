"""Quark's quantization_config: which rule a layer follows, and the format that a rule means. Torch-free until a format is built."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import WeightFormat

from ._names import listed, matches_pattern

_PATH = "quantization_config."
#: Projections whose outputs are what the KV cache holds: their output rounding is the cache's.
_CACHED = ("k_proj", "v_proj", "kv_proj", "qkv_proj", "query_key_value")


#: 6-bit floats and the bits of their exponents.
_SIXES = {"fp6_e2m3": 2, "fp6_e3m2": 3}


class Tensors(msgspec.Struct, frozen=True):
    """How weights or activations are rounded. ``dynamic``: activations get their scale when they come."""

    dtype: str
    scheme: str
    dynamic: bool
    symmetric: bool
    group: int


class Rule(msgspec.Struct, frozen=True):
    """What holds for a layer; ``weight`` None: it is not quantized."""

    weight: Tensors | None
    inputs: Tensors | None

    def shown(self) -> str:
        """For the plan."""
        if self.weight is None:
            return "not quantized"
        inputs = self.inputs
        how = "as they are" if inputs is None else f"{inputs.dtype} {inputs.scheme} {'dynamic' if inputs.dynamic else 'static'}"
        return f"weights {self.weight.dtype} {self.weight.scheme}, activations {how}"


class QuarkConfig(msgspec.Struct, frozen=True):
    """``by_name``: (pattern, rule), the first that matches wins; ``linear``: the rule of the type; ``everywhere``: of all layers.
    ``reordered``: words of 4-bit integers hold columns in AWQ's order, else one after the other.
    """

    by_name: tuple[tuple[str, Rule], ...]
    linear: Rule | None
    everywhere: Rule
    excluded: tuple[str, ...]
    reordered: bool = True

    def rule(self, name: str) -> Rule | None:
        """The rule of a layer or part, None where it is not quantized."""
        if any(matches_pattern(name, pattern) for pattern in self.excluded):
            return None
        named = next((rule for pattern, rule in self.by_name if matches_pattern(name, pattern)), None)
        found = named or self.linear or self.everywhere
        return None if found.weight is None else found


def read_quark(config: dict[str, Any]) -> QuarkConfig:
    """Raises :class:`engine.errors.ModelFileError` naming the key that cannot be read."""
    reader = ConfigReader(config, _PATH)
    everywhere = _rule(reader.table("global_quant_config"), "global_quant_config")
    if everywhere is None:
        raise reader.complaint("global_quant_config", config.get("global_quant_config"), "an object")
    by_name, types = reader.table("layer_quant_config"), reader.table("layer_type_quant_config")
    named = [(pattern, _rule(by_name.table(pattern), pattern)) for pattern in (by_name.values if by_name else ()) if by_name]
    linear = _rule(types.table("Linear"), "Linear") if types else None
    export = reader.table("export")
    pack = export.text("pack_method", "reorder", known=("reorder", "order")) if export else "reorder"
    rules = tuple((pattern, rule) for pattern, rule in named if rule is not None)
    return QuarkConfig(rules, linear, everywhere, tuple(listed(reader, "exclude")), pack == "reorder")


def _rule(reader: ConfigReader | None, name: str) -> Rule | None:
    if reader is None:
        return None
    outputs = reader.table("output_tensors")
    if outputs is not None and not name.rstrip("*").endswith(_CACHED):
        raise reader.complaint("output_tensors", outputs.values, "null: only the KV cache's projections may round their outputs")
    if (bias := reader.table("bias")) is not None:
        raise reader.complaint("bias", bias.values, "null")
    return Rule(_tensors(reader, "weight"), _tensors(reader, "input_tensors"))


def _tensors(rule: ConfigReader, key: str) -> Tensors | None:
    found = rule.values.get(key)
    if isinstance(found, list) and len(found) == 1:
        # Later versions list the steps of a quantization.
        rule = ConfigReader({key: found[0]}, rule.path)
    reader = rule.table(key)
    if reader is None:
        return None
    return Tensors(
        reader.text("dtype"), reader.text("qscheme", "per_tensor"), reader.flag("is_dynamic", False), reader.flag("symmetric", True),
        reader.optional_integer("group_size", low=-1) or 0,
    )  # fmt: skip


def build(rule: Rule, reordered: bool = True) -> WeightFormat:
    """The reader of a layer's tensors; ``reordered``: see :class:`QuarkConfig`.

    Raises :class:`engine.errors.ModelFileError` naming the scheme that is not read.
    """
    from ._compressed_config import Numbers
    from ._compressed_integers import IntegerFormat
    from ._e2m1 import E2M1Format, SixBitFormat, Spelling
    from ._floats import Float8Format

    weight, inputs = rule.weight, rule.inputs
    scopes = {"per_tensor": (0, 0), "per_channel": (1, 0)}
    if weight is not None and weight.dtype in ("int4", "uint4") and weight.scheme == "per_group" and weight.group > 0 and inputs is None:
        from ._quark_words import NibbleWordsFormat

        return NibbleWordsFormat(weight.group, signed=weight.dtype == "int4", reordered=reordered)
    if weight is not None and not weight.dynamic and weight.symmetric:
        if weight.dtype == "fp8_e4m3" and weight.scheme in scopes and (inputs is None or inputs.dtype == "fp8_e4m3"):
            return Float8Format(scopes[weight.scheme], _inputs(rule))
        if weight.dtype == "int8" and weight.scheme in scopes and (inputs is None or inputs.dtype == "int8"):
            strategy = "tensor" if weight.scheme == "per_tensor" else "channel"
            numbers = Numbers(8, "int", True, strategy, 0, (0, 0), dynamic=False, ordered=False, powers=False)
            return IntegerFormat(numbers, _inputs(rule), packed=False)
        if (weight.dtype, weight.scheme, weight.group) == ("fp4", "per_group", 32) and (inputs is None or inputs.dtype == "fp4"):
            return E2M1Format(32, Spelling("weight", "weight_scale", None), _inputs(rule))
        if weight.dtype in _SIXES and (weight.scheme, weight.group) == ("per_group", 32) and inputs is None:
            return SixBitFormat(32, None, exponent=_SIXES[weight.dtype], suffix="weight")
    raise ModelFileError(
        f"config.json: quantization_config: {rule.shown()} is no scheme that is read.",
        fix="fp8_e4m3 per_tensor or per_channel, int8 with static activations, fp4 or fp6 per_group of 32, int4 or uint4 per_group",
    )


def _inputs(rule: Rule) -> Any:
    import torch

    from ._inputs import Inputs

    found = rule.inputs
    if found is None:
        return None
    if found.dtype == "fp4" and found.dynamic and found.scheme == "per_group":
        # The scale is the power of two below the largest value, over that of e2m1; rounding to 2 bits may push it up.
        return Inputs("e2m1", group=32, scale_dtype=torch.float8_e8m0fnu, top=7.0 * (1 - 2.0**-16))
    if found.dtype == "fp8_e4m3" and found.dynamic and found.scheme in ("per_tensor", "per_token", "per_channel"):
        return Inputs("float8_e4m3fn", group=-1 if found.scheme == "per_tensor" else 0)
    if found.dtype == "fp8_e4m3" and not found.dynamic and found.scheme == "per_tensor":
        return Inputs("float8_e4m3fn", scales=("input_scale",))
    if found.dtype == "int8" and not found.dynamic and found.scheme == "per_tensor":
        return Inputs("int8", scales=("input_scale",), zero="input_zero_point")
    raise ModelFileError(
        f"config.json: {_PATH}input_tensors: {rule.shown()} is no scheme that is read.",
        fix="static per_tensor activations, or dynamic fp8_e4m3",
    )
