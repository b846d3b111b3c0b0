"""Grammars stepped by the native pool: arguments of the kernel."""

from __future__ import annotations

import ctypes

from engine.plugin import GrammarSteps


class StepGrammars(ctypes.Structure):
    """``engine_step_grammars_arguments`` of native/grammars.h."""

    _fields_ = (
        ("calls", ctypes.c_void_p), ("bits", ctypes.c_void_p), ("kept", ctypes.c_void_p), ("ends", ctypes.c_void_p),
        ("status", ctypes.c_void_p), ("late", ctypes.c_void_p), ("words", ctypes.c_int64), ("end", ctypes.c_int64),
        ("limit", ctypes.c_int64), ("rows", ctypes.c_int32), ("per_row", ctypes.c_int32), ("extra", ctypes.c_int32),
    )  # fmt: skip


class SampleMasked(ctypes.Structure):
    """``engine_sample_masked_arguments`` of native/grammars.h."""

    _fields_ = (("steps", ctypes.c_void_p), ("masks", ctypes.c_void_p), ("draw", ctypes.c_void_p))


def step_grammars(steps: GrammarSteps) -> StepGrammars:
    """As the kernel takes them; valid as long as ``steps`` are."""
    return StepGrammars(
        calls=steps.calls.ctypes.data, bits=steps.bits.ctypes.data, kept=steps.kept.ctypes.data, ends=steps.ends.ctypes.data,
        status=steps.status.ctypes.data, late=steps.late.ctypes.data, words=steps.bits.shape[1], end=steps.end,
        limit=int(steps.limit * 1e9), rows=steps.calls.shape[0], per_row=steps.calls.shape[1], extra=steps.ends.shape[1],
    )  # fmt: skip
