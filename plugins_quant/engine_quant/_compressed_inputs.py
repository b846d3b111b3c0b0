"""Activations as compressed-tensors rounds them."""

from __future__ import annotations

import torch

from engine.errors import ModelFileError

from ._compressed_config import Numbers
from ._inputs import Inputs

#: Scales in powers of two go up from 1.75 times one; a hair less than the largest value turns "not below" into that.
_HAIR = 1 - 2.0**-16


def inputs_of(numbers: Numbers | None, where: str) -> Inputs | None:
    """The rounding that ``input_activations`` describes; None where activations stay as they are.

    A symmetric dynamic int8 scale is max|x| / 127.5: the library divides by half of the whole range.
    """
    if numbers is None:
        return None
    if (numbers.kind, numbers.bits) == ("int", 8):
        return _integers(numbers, where)
    if not numbers.symmetric:
        raise _unknown(where, "symmetric", False, "true for floats")
    if (numbers.kind, numbers.bits) == ("float", 8):
        return _floats8(numbers, where)
    if (numbers.kind, numbers.bits) == ("float", 4):
        return _floats4(numbers, where)
    raise _unknown(where, "num_bits", f"{numbers.bits} ({numbers.kind})", "8 (int), 8 (float) or 4 (float)")


def _integers(numbers: Numbers, where: str) -> Inputs:
    if not numbers.dynamic:
        if numbers.strategy != "tensor":
            raise _unknown(where, "strategy", numbers.strategy, "tensor where activations are static")
        return Inputs("int8", scales=("input_scale",), zero=None if numbers.symmetric else "input_zero_point")
    return Inputs("int8", group=_group(numbers, where), top=127.5, asymmetric=not numbers.symmetric)


def _floats8(numbers: Numbers, where: str) -> Inputs:
    if numbers.powers:
        return Inputs("float8_e4m3fn", group=_group(numbers, where), scale_dtype=torch.float8_e8m0fnu, top=448.0 * _HAIR)
    if not numbers.dynamic:
        if numbers.strategy != "tensor":
            raise _unknown(where, "strategy", numbers.strategy, "tensor where activations are static")
        return Inputs("float8_e4m3fn", scales=("input_scale",))
    return Inputs("float8_e4m3fn", group=_group(numbers, where))


def _floats4(numbers: Numbers, where: str) -> Inputs:
    if numbers.strategy == "tensor_group":
        scales = ("input_global_scale",)
        return Inputs("e2m1", scales, reciprocal=True, group=numbers.group, scale_dtype=torch.float8_e4m3fn)
    if numbers.strategy == "group" and numbers.powers:
        return Inputs("e2m1", group=numbers.group, scale_dtype=torch.float8_e8m0fnu, top=7.0 * _HAIR)
    raise _unknown(where, "strategy", numbers.strategy, "tensor_group, or group with scale_dtype torch.uint8")


def _group(numbers: Numbers, where: str) -> int:
    """``ActivationRounding.group``: 0 per token, -1 for the whole tensor, else inputs."""
    if numbers.strategy == "token":
        return 0
    if numbers.strategy == "tensor":
        return -1
    if numbers.strategy == "group":
        return numbers.group
    raise _unknown(where, "strategy", numbers.strategy, "token, tensor or group where activations are dynamic")


def _unknown(where: str, key: str, value: object, wanted: str) -> ModelFileError:
    return ModelFileError(
        f"config.json: {where}.input_activations.{key} is {value}; it must be {wanted}.", fix="a checkpoint of another scheme"
    )
