"""Argument structs of the native operations on rows."""

from __future__ import annotations

import ctypes


class Rows(ctypes.Structure):
    """``engine_rows_arguments`` of native/rows.h."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("y", ctypes.c_void_p), ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p),
        ("out", ctypes.c_void_p), ("sum", ctypes.c_void_p), ("x_outer", ctypes.c_int64), ("x_inner", ctypes.c_int64),
        ("y_outer", ctypes.c_int64), ("y_inner", ctypes.c_int64), ("outer", ctypes.c_int64), ("inner", ctypes.c_int64),
        ("size", ctypes.c_int64), ("type", ctypes.c_int32), ("function", ctypes.c_int32), ("eps", ctypes.c_float),
        ("offset", ctypes.c_float), ("cap", ctypes.c_float),
    )  # fmt: skip


class Rotate(ctypes.Structure):
    """``engine_rotate_arguments`` of native/rows.h."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("cos", ctypes.c_void_p), ("sin", ctypes.c_void_p), ("out", ctypes.c_void_p),
        ("x_row", ctypes.c_int64), ("x_head", ctypes.c_int64), ("angle_row", ctypes.c_int64), ("rows", ctypes.c_int32),
        ("heads", ctypes.c_int32), ("size", ctypes.c_int32), ("half", ctypes.c_int32), ("type", ctypes.c_int32),
        ("interleaved", ctypes.c_int32),
    )  # fmt: skip


class Angles(ctypes.Structure):
    """``engine_angles_arguments`` of native/rows.h."""

    _fields_ = (
        ("positions", ctypes.c_void_p), ("frequencies", ctypes.c_void_p), ("cos", ctypes.c_void_p), ("sin", ctypes.c_void_p),
        ("rows", ctypes.c_int32), ("count", ctypes.c_int32), ("type", ctypes.c_int32), ("scale", ctypes.c_float),
    )  # fmt: skip


class Embed(ctypes.Structure):
    """``engine_embed_arguments`` of native/rows.h."""

    _fields_ = (
        ("ids", ctypes.c_void_p), ("weight", ctypes.c_void_p), ("out", ctypes.c_void_p), ("size", ctypes.c_int64),
        ("offset", ctypes.c_int64), ("rows", ctypes.c_int32), ("type", ctypes.c_int32), ("scaled", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )  # fmt: skip


class Select(ctypes.Structure):
    """``engine_select_arguments`` of native/rows.h."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("rows", ctypes.c_void_p), ("out", ctypes.c_void_p), ("x_row", ctypes.c_int64),
        ("x_inner", ctypes.c_int64), ("count", ctypes.c_int64), ("inner", ctypes.c_int64), ("size", ctypes.c_int64),
        ("type", ctypes.c_int32),
    )  # fmt: skip


class Best(ctypes.Structure):
    """``engine_best_arguments`` of native/rows.h."""

    _fields_ = (
        ("logits", ctypes.c_void_p), ("value", ctypes.c_void_p), ("place", ctypes.c_void_p), ("scratch", ctypes.c_void_p),
        ("row", ctypes.c_int64), ("size", ctypes.c_int64), ("rows", ctypes.c_int32), ("type", ctypes.c_int32),
    )  # fmt: skip


class Forbid(ctypes.Structure):
    """``engine_forbid_arguments`` of native/forbid.h."""

    _fields_ = (
        ("logits", ctypes.c_void_p), ("rows", ctypes.c_void_p), ("bits", ctypes.c_void_p), ("row", ctypes.c_int64),
        ("size", ctypes.c_int64), ("words", ctypes.c_int64), ("count", ctypes.c_int32), ("type", ctypes.c_int32),
    )  # fmt: skip


class Sample(ctypes.Structure):
    """``engine_sample_arguments`` of native/sample.h."""

    _fields_ = (
        ("logits", ctypes.c_void_p), ("best", ctypes.c_void_p), ("temperature", ctypes.c_void_p), ("top_p", ctypes.c_void_p),
        ("deepest", ctypes.c_void_p), ("top_k", ctypes.c_void_p), ("chance", ctypes.c_void_p), ("token", ctypes.c_void_p),
        ("row", ctypes.c_int64), ("size", ctypes.c_int64), ("rows", ctypes.c_int32), ("type", ctypes.c_int32),
    )  # fmt: skip
