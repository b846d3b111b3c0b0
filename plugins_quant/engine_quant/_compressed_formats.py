"""The format of a layer by its scheme in compressed-tensors."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.layers.packed import DensePacked
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._compressed_config import Numbers, Scheme
from ._compressed_inputs import inputs_of
from ._compressed_integers import IntegerFormat
from ._e2m1 import E2M1Format, SixBitFormat, Spelling
from ._floats import PLAIN, Float8Format
from ._inputs import Inputs
from ._tensors import check, damaged, plain

_INTEGERS = ("pack-quantized", "int-quantized", "naive-quantized")
_FLOATS = ("float-quantized", "naive-quantized", "mxfp8-quantized")


def build(scheme: Scheme | None, sparse: bool) -> WeightFormat:
    """The reader of a layer's tensors. Raises :class:`engine.errors.ModelFileError` naming what no method here reads."""
    inputs = None if scheme is None else inputs_of(scheme.inputs, _where(scheme))
    if not sparse:
        if scheme is None:
            raise ValueError("a layer without a scheme has no format")
        return _weights(scheme, inputs)
    from ._compressed_sparse import BitmaskFormat

    if scheme is None or scheme.weights is None or scheme.format == "dense":
        return BitmaskFormat(None, None, inputs)
    # Of two kept values in four, groups and blocks hold half as many.
    numbers = scheme.weights
    halved = msgspec.structs.replace(numbers, group=numbers.group // 2, block=(numbers.block[0], numbers.block[1] // 2))
    return BitmaskFormat(_weights(scheme, None), _weights(msgspec.structs.replace(scheme, weights=halved), None), inputs)


def _where(scheme: Scheme) -> str:
    return f"quantization_config.config_groups.{scheme.key}"


def _weights(scheme: Scheme, inputs: Inputs | None) -> WeightFormat:
    where, numbers = _where(scheme), scheme.weights
    if numbers is None or scheme.format == "dense":
        raise ModelFileError(f"config.json: {where} has no compressed weights to read.", fix="a compressed checkpoint")
    kind = (numbers.kind, scheme.format)
    if scheme.format == "marlin-24":
        from ._compressed_sparse import marlin24

        return marlin24(numbers, where)
    if numbers.kind == "int" and scheme.format in _INTEGERS and numbers.bits <= 8 and numbers.strategy in ("tensor", "channel", "group"):
        return IntegerFormat(numbers, inputs, packed=scheme.format == "pack-quantized")
    if numbers.kind == "float" and numbers.bits == 8 and scheme.format in _FLOATS and numbers.symmetric:
        return Float8Format(_scope(numbers, where), inputs)
    if kind == ("float", "nvfp4-pack-quantized") and numbers.group:
        return E2M1Format(numbers.group, Spelling(), inputs)
    if kind == ("float", "mxfp4-pack-quantized") and numbers.group:
        return E2M1Format(numbers.group, Spelling(outer=None), inputs)
    if kind == ("float", "mxfp6-pack-quantized") and numbers.group:
        return SixBitFormat(numbers.group, inputs)
    raise ModelFileError(
        f"config.json: {where} has {numbers.kind} weights of {numbers.bits} bits per {numbers.strategy} as {scheme.format!r}, "
        "which is none of the schemes that are read.",
        fix="pack-quantized, int-quantized, float-quantized, nvfp4-pack-quantized, mxfp4-pack-quantized or mxfp8-quantized",
    )


def _scope(numbers: Numbers, where: str) -> tuple[int, int]:
    """Outputs and inputs under one scale, as :class:`Float8Format` has them."""
    scopes = {"tensor": (0, 0), "channel": (1, 0), "group": (1, numbers.group), "block": numbers.block}
    if numbers.strategy not in scopes:
        raise ModelFileError(
            f"config.json: {where}.weights.strategy is {numbers.strategy!r}; 8-bit floats need tensor, channel, group or block.",
            fix="a checkpoint of another scheme",
        )
    return scopes[numbers.strategy]


class EitherFormat(WeightFormat):
    """A layer that a list does not name but the producer may have left alone all the same (a router, the head): what is there decides.

    ``inner`` is the format of the quantized layer; a plain ``weight`` alone is taken in its place.
    """

    def __init__(self, inner: WeightFormat) -> None:
        self.inner = inner

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The format's own, all optional, and a plain weight."""
        own = tuple(msgspec.structs.replace(each, optional=True) for each in self.inner.tensors())
        return own if any(each.suffix == "weight" for each in own) else (*own, CheckpointTensor("weight", 0, 1, optional=True))

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        if set(tensors) != {"weight"}:
            return self.inner.pack(layer, tensors, dtype)
        weight = check(layer, "weight", tensors["weight"], (layer.outputs, layer.inputs))
        if weight.dtype not in PLAIN:
            raise damaged(layer, "weight", f"holds {plain(weight.dtype)} without a weight_scale", "one beside it")
        return DensePacked(weight.to(dtype, copy=True), exclusive=True)
