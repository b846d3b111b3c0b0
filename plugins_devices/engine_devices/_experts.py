"""Mixtures of experts on the native kernels: every expert of a layer in one operation."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine_devices._arguments import element_type
from engine_devices._composite import NativeRounded, run_round
from engine_devices._host_limits import last_cache_bytes
from engine_devices._linear import GATES, LinearArgs, NativeLinear
from engine_devices._rounding import arguments_of

if TYPE_CHECKING:
    from torch import Tensor

    from engine.layers.packed_quantized import ActivationRounding
    from engine.plugin import LinearKernel
    from engine_devices._native import Native
    from engine_devices._weights import Panels


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


@dataclass(frozen=True)
class Products:
    """One product of every expert. ``rounding``: what all of them do to their activations before, row by row."""

    kernels: tuple[NativeLinear, ...]
    rounding: ActivationRounding | None = None

    @classmethod
    def of(cls, kernels: Sequence[LinearKernel]) -> Products | None:
        """None where one of them does something of its own to its activations."""
        plain = tuple(kernel for kernel in kernels if isinstance(kernel, NativeLinear))
        if len(plain) == len(kernels):
            return cls(plain)
        rounded = [kernel for kernel in kernels if isinstance(kernel, NativeRounded)]
        inner = tuple(kernel.inner for kernel in rounded if isinstance(kernel.inner, NativeLinear))
        kinds = {by_rows(kernel.rounding) for kernel in rounded}
        return cls(inner, rounded[0].rounding) if len(inner) == len(kernels) and len(kinds) == 1 and None not in kinds else None

    @property
    def panels(self) -> Panels:
        """Of the first; all are of one shape."""
        return self.kernels[0].panels

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return sum(kernel.panels.nbytes for kernel in self.kernels)

    def enter(self, native: Native, x: Tensor) -> Tensor:
        """x [rows, inputs] as the products take it."""
        if self.rounding is None:
            return x
        values = torch.empty(x.shape, dtype=torch.float32)
        run_round(native, arguments_of(self.rounding)[0], x, values)
        return values

    def arguments(self, dtype: torch.dtype, gate: int, once: bool) -> ctypes.Array[LinearArgs]:
        """Of each expert, for activations and results of that dtype."""
        taken = dtype if self.rounding is None else torch.float32
        listed = (LinearArgs * len(self.kernels))(*(kernel.template(taken) for kernel in self.kernels))
        for arguments in listed:
            arguments.out_type, arguments.gate, arguments.once = element_type(dtype), gate, once
        return listed


class NativeMixture:
    """Routes rows to experts, runs each expert on its rows, and sums what they give; see ``Operations.mixture``."""

    def __init__(self, native: Native, gate_up: Products, down: Products, top_k: int, renormalize: bool, act: str) -> None:
        self._native = native
        self._gate_up, self._down = gate_up, down
        self._top_k, self._renormalize, self._gate = top_k, renormalize, GATES[act]
        self._once = gate_up.nbytes + down.nbytes > last_cache_bytes()
        self._layers: dict[torch.dtype, tuple[ctypes.Array[LinearArgs], ctypes.Array[LinearArgs]]] = {}

    def __call__(self, x: Tensor, logits: Tensor) -> Tensor:
        """[T, hidden], and [T, experts] of any float dtype → [T, hidden]."""
        rows, hidden = x.shape
        pairs = rows * self._top_k
        weight, begin, order, place = self._route(logits)
        gate_up, down = self._arguments(x.dtype)
        between = torch.empty((pairs, self._down.panels.inputs), dtype=x.dtype)
        self._run(gate_up, self._gate_up.enter(self._native, x), between, begin, order)
        done = torch.empty((pairs, hidden), dtype=x.dtype)
        self._run(down, self._down.enter(self._native, between), done, begin, None)
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
            self._layers[dtype] = self._gate_up.arguments(dtype, self._gate, self._once), self._down.arguments(dtype, 0, self._once)
        return self._layers[dtype]


def by_rows(rounding: ActivationRounding) -> tuple[object, ...] | None:
    """What it is, where it is made of each row alone; None where it has tensors of a layer's own, or a scale of all rows together."""
    if rounding.scale is not None or rounding.zero is not None or rounding.group < 0:
        return None
    return rounding.kind, rounding.group, rounding.top, rounding.upper, rounding.asymmetric, rounding.scale_dtype


def mixture(
    native: Native, gate_up: Sequence[LinearKernel], down: Sequence[LinearKernel], *, top_k: int, renormalize: bool, act: str
) -> NativeMixture | None:
    """The mixture of these experts; None where one of their weights is of a form of its own, or the function has no gate of its own."""
    first, second = Products.of(gate_up), Products.of(down)
    if first is None or second is None or act not in GATES:
        return None
    inner = second.panels.inputs
    if inner % 32 or any(kernel.panels.outputs != 2 * inner for kernel in first.kernels):
        return None
    return NativeMixture(native, first, second, top_k, renormalize, act)
