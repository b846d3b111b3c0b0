"""Rows of a quantized weight in panels, for embeddings, also those that share it with the head."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from engine_devices._arguments import address, element_type, rounded
from engine_devices._native import Native
from engine_devices._weights import Panels


class GatherQuantizedArgs(ctypes.Structure):
    """``gather_quantized_args`` of native/gather.cpp."""

    _fields_ = (
        ("weight", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("shift", ctypes.c_void_p), ("table", ctypes.c_void_p),
        ("outer", ctypes.c_void_p), ("ids", ctypes.c_void_p), ("out", ctypes.c_void_p), ("out_stride", ctypes.c_int64),
        ("count", ctypes.c_int64), ("outputs", ctypes.c_int64), ("inputs", ctypes.c_int64), ("weight_type", ctypes.c_int32),
        ("scale_type", ctypes.c_int32), ("out_type", ctypes.c_int32), ("group", ctypes.c_int32), ("factor", ctypes.c_float),
        ("multiplier", ctypes.c_float),
    )  # fmt: skip


def gather(native: Native, panels: Panels, ids: Tensor, dtype: torch.dtype, scale: float | None) -> Tensor:
    """Rows ``ids`` (int64 [T], contiguous) dequantized, [T, inputs]: computed in float32, rounded to ``dtype``, then times ``scale``."""
    if panels.scale is None:
        raise ValueError("dense panels are gathered by another operation")
    out = torch.empty((len(ids), panels.inputs), dtype=dtype)
    arguments = GatherQuantizedArgs(
        weight=panels.weight.data_ptr(), scale=panels.scale.data_ptr(), shift=address(panels.shift), table=address(panels.table),
        outer=address(panels.outer), ids=ids.data_ptr(), out=out.data_ptr(), out_stride=panels.inputs, count=len(ids),
        outputs=panels.outputs, inputs=panels.inputs, weight_type=panels.type, scale_type=element_type(panels.scale.dtype),
        out_type=element_type(dtype), group=panels.group, factor=panels.factor,
        multiplier=0.0 if scale is None else rounded(scale, dtype),
    )  # fmt: skip
    native.run("engine_gather_quantized", arguments, ids, out, panels)
    return out
