"""Mixtures of experts on the native kernels: every expert of a layer in one operation."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch

from engine_devices._arguments import element_type
from engine_devices._host_limits import last_cache_bytes
from engine_devices._linear import GATES, LinearArgs, NativeLinear

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin import LinearKernel
    from engine_devices._native import Native


class Route(ctypes.Structure):
    """``route_args`` of native/experts.cpp."""

    _fields_ = (
        ("logits", ctypes.c_void_p), ("weight", ctypes.c_void_p), ("chosen", ctypes.c_void_p), ("begin", ctypes.c_void_p),
        ("pairs", ctypes.c_void_p), ("place", ctypes.c_void_p), ("logits_stride", ctypes.c_int64), ("rows", ctypes.c_int32),
        ("experts", ctypes.c_int32), ("top_k", ctypes.c_int32), ("type", ctypes.c_int32), ("renormalize", ctypes.c_int32),
    )  # fmt: skip


class Experts(ctypes.Structure):
    """``experts_args`` of native/experts.cpp."""

    _fields_ = (
        ("layers", ctypes.c_void_p), ("x", ctypes.c_void_p), ("out", ctypes.c_void_p), ("begin", ctypes.c_void_p),
        ("pairs", ctypes.c_void_p), ("x_stride", ctypes.c_int64), ("out_stride", ctypes.c_int64), ("experts", ctypes.c_int32),
        ("top_k", ctypes.c_int32),
    )  # fmt: skip


class Mix(ctypes.Structure):
    """``mix_args`` of native/experts.cpp."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("weight", ctypes.c_void_p), ("place", ctypes.c_void_p), ("out", ctypes.c_void_p),
        ("size", ctypes.c_int64), ("rows", ctypes.c_int32), ("top_k", ctypes.c_int32), ("type", ctypes.c_int32),
    )  # fmt: skip


class NativeMixture:
    """Routes rows to experts, runs each expert on its rows, and sums what they give; see ``Operations.mixture``."""

    def __init__(
        self, native: Native, gate_up: Sequence[NativeLinear], down: Sequence[NativeLinear], top_k: int, renormalize: bool, act: str
    ) -> None:
        self._native = native
        self._gate_up, self._down = tuple(gate_up), tuple(down)
        self._top_k, self._renormalize, self._gate = top_k, renormalize, GATES[act]
        self._inner = down[0].panels.inputs
        self._once = sum(kernel.panels.nbytes for kernel in (*gate_up, *down)) > last_cache_bytes()
        self._layers: dict[torch.dtype, tuple[ctypes.Array[LinearArgs], ctypes.Array[LinearArgs]]] = {}

    def __call__(self, x: Tensor, logits: Tensor) -> Tensor:
        """[T, hidden], and [T, experts] of any float dtype → [T, hidden]."""
        rows, hidden = x.shape
        pairs = rows * self._top_k
        weight, begin, order, place = self._route(logits)
        gate_up, down = self._arguments(x.dtype)
        between = torch.empty((pairs, self._inner), dtype=x.dtype)
        self._run(gate_up, x, between, begin, order)
        done = torch.empty((pairs, hidden), dtype=x.dtype)
        self._run(down, between, done, begin, None)
        out = torch.empty((rows, hidden), dtype=x.dtype)
        mix = Mix(
            x=done.data_ptr(), weight=weight.data_ptr(), place=place.data_ptr(), out=out.data_ptr(), size=hidden, rows=rows,
            top_k=self._top_k, type=element_type(x.dtype),
        )  # fmt: skip
        self._native.run("engine_mix", mix, done, weight, place, out)
        return out

    def _route(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Each row's weights; where each expert's pairs begin; the pairs in the experts' order; and each pair's place there."""
        rows, experts = logits.shape
        weight = torch.empty((rows, self._top_k), dtype=torch.float32)
        begin = torch.empty(experts + 1, dtype=torch.int32)
        chosen, order, place = (torch.empty(rows * self._top_k, dtype=torch.int32) for _ in range(3))
        arguments = Route(
            logits=logits.data_ptr(), weight=weight.data_ptr(), chosen=chosen.data_ptr(), begin=begin.data_ptr(), pairs=order.data_ptr(),
            place=place.data_ptr(), logits_stride=logits.stride(0), rows=rows, experts=experts, top_k=self._top_k,
            type=element_type(logits.dtype), renormalize=self._renormalize,
        )  # fmt: skip
        self._native.run("engine_route", arguments, logits, weight, chosen, begin, order, place)
        return weight, begin, order, place

    def _run(self, layers: ctypes.Array[LinearArgs], x: Tensor, out: Tensor, begin: Tensor, pairs: Tensor | None) -> None:
        arguments = Experts(
            layers=ctypes.addressof(layers), x=x.data_ptr(), out=out.data_ptr(), begin=begin.data_ptr(),
            pairs=None if pairs is None else pairs.data_ptr(), x_stride=x.stride(0), out_stride=out.stride(0), experts=len(layers),
            top_k=self._top_k,
        )  # fmt: skip
        self._native.run("engine_experts", arguments, self, layers, x, out, begin, pairs)

    def _arguments(self, dtype: torch.dtype) -> tuple[ctypes.Array[LinearArgs], ctypes.Array[LinearArgs]]:
        """Of every expert's two products with activations of that dtype."""
        if dtype not in self._layers:
            kind = element_type(dtype)
            gate_up = (LinearArgs * len(self._gate_up))(*(kernel.template(dtype) for kernel in self._gate_up))
            down = (LinearArgs * len(self._down))(*(kernel.template(dtype) for kernel in self._down))
            for arguments in (*gate_up, *down):
                arguments.out_type, arguments.once = kind, self._once
            for arguments in gate_up:
                arguments.gate = self._gate
            self._layers[dtype] = gate_up, down
        return self._layers[dtype]


def mixture(
    native: Native, gate_up: Sequence[LinearKernel], down: Sequence[LinearKernel], *, top_k: int, renormalize: bool, act: str
) -> NativeMixture | None:
    """The mixture of these experts; None where one of their weights is made of others, or the function has no gate of its own."""
    if act not in GATES or not _native(gate_up) or not _native(down):
        return None
    inner = down[0].panels.inputs
    if inner % 32 or any(kernel.panels.outputs != 2 * inner for kernel in gate_up):
        return None
    return NativeMixture(native, gate_up, down, top_k, renormalize, act)


def _native(kernels: Sequence[LinearKernel]) -> TypeGuard[Sequence[NativeLinear]]:
    return all(isinstance(kernel, NativeLinear) for kernel in kernels)
