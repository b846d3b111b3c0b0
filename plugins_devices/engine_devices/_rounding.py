"""The rounding of activations that a format defines, as arguments of the native operation."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from engine.layers.packed_quantized import ActivationRounding

#: ``engine_rounding`` and ``engine_scale_rounding`` of native/rounding.cpp.
KINDS = {"int8": 1, "float8_e4m3fn": 2, "float8_e5m2": 3, "e2m1": 4}
SCALES = {None: 0, torch.float8_e4m3fn: 1, torch.float8_e8m0fnu: 2}


class Round(ctypes.Structure):
    """``round_args`` of native/rounding.cpp."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("zero", ctypes.c_void_p), ("factor", ctypes.c_void_p),
        ("out", ctypes.c_void_p), ("x_stride", ctypes.c_int64), ("rows", ctypes.c_int64), ("size", ctypes.c_int64),
        ("type", ctypes.c_int32), ("out_type", ctypes.c_int32), ("kind", ctypes.c_int32), ("group", ctypes.c_int32),
        ("dynamic", ctypes.c_int32), ("asymmetric", ctypes.c_int32), ("scale_rounding", ctypes.c_int32), ("top", ctypes.c_float),
        ("upper", ctypes.c_float),
    )  # fmt: skip


def arguments_of(rounding: ActivationRounding) -> tuple[Round, tuple[Tensor | None, ...]]:
    """The arguments without x and out, and the tensors that they point to."""
    static = rounding.scale is not None and rounding.group <= 0
    # What the definition does not look at is left out.
    scale = rounding.scale if static or rounding.scale_dtype is not None else None
    scale = None if scale is None else scale.float().reshape(1).clone()
    zero = None if rounding.zero is None or not static else rounding.zero.float().reshape(1).clone()
    arguments = Round(
        scale=None if scale is None else scale.data_ptr(), zero=None if zero is None else zero.data_ptr(),
        kind=KINDS[rounding.kind], group=rounding.group, dynamic=not static, asymmetric=rounding.asymmetric and not static,
        scale_rounding=SCALES[rounding.scale_dtype], top=rounding.top, upper=rounding.upper or 0.0,
    )  # fmt: skip
    return arguments, (scale, zero)
