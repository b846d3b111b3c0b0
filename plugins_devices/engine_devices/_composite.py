"""Native kernels of weights that are made of others: reordered inputs, stacked outputs, multiplied or rounded activations."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.layers.packed_quantized import ActivationRounding, Joined, Permuted, RoundedInputs, ScaledInputs
from engine.layers.rounding import TOP
from engine.plugin import LinearKernel, PackedWeight
from engine_devices._arguments import element_type
from engine_devices._linear import LinearArgs, NativeLinear, activation_group, leaf_kernel, takes
from engine_devices._native import Native
from engine_devices._rounding import Round, arguments_of

#: Weights of integers, by ``engine_type``.
INTEGERS = frozenset({5, 6, 9, 10, 11, 12})


class Writes(Protocol):
    """A native kernel: it writes its product where it is told to."""

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor, /) -> None: ...

    def part(self, begin: int, end: int, /) -> LinearKernel | None: ...


class Columns(ctypes.Structure):
    """``columns_args`` of native/gather.cpp."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("order", ctypes.c_void_p), ("out", ctypes.c_void_p), ("x_stride", ctypes.c_int64),
        ("rows", ctypes.c_int64), ("size", ctypes.c_int64), ("type", ctypes.c_int32),
    )  # fmt: skip


class RoundIntegers(ctypes.Structure):
    """``round_integers_args`` of native/rounding.cpp."""

    _fields_ = (("linear", LinearArgs), ("scale", ctypes.c_void_p), ("top", ctypes.c_float), ("upper", ctypes.c_float))


class NativeComposite(LinearKernel):
    """Does something to the activations, then what other native kernels do."""

    inner: Any

    def __init__(self, native: Native, packed: PackedWeight) -> None:
        self.native, self.outputs, self.inputs = native, packed.outputs, packed.inputs

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype."""
        out = torch.empty((*x.shape[:-1], self.outputs), dtype=x.dtype)
        self.into(x, bias, out.view(-1, self.outputs))
        return out

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """[…, inputs] → ``out`` [rows, outputs] of any float dtype, rows any distance apart."""
        raise NotImplementedError

    def part(self, begin: int, end: int) -> LinearKernel | None:
        """See the contract: the same with a part of the inner weight."""
        inner = self.inner.part(begin, end)
        if inner is None:
            return None
        made = copy(self)
        made.inner, made.outputs = inner, end - begin
        return made

    def rows(self, x: Tensor) -> Tensor:
        """x [rows, inputs] with adjacent columns."""
        flat = x if x.dim() == 2 else x.reshape(-1, self.inputs)
        return flat if flat.stride(1) == 1 else flat.contiguous()


class NativePermuted(NativeComposite):
    """Gathers the activations' columns."""

    def __init__(self, native: Native, packed: Permuted, inner: Writes) -> None:
        super().__init__(native, packed)
        self.inner, self.order = inner, packed.order.to(torch.int32)

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See the base."""
        x = self.rows(x)
        moved = torch.empty((len(x), len(self.order)), dtype=x.dtype)
        arguments = Columns(
            x.data_ptr(), self.order.data_ptr(), moved.data_ptr(), x.stride(0), len(x), len(self.order), element_type(x.dtype)
        )  # fmt: skip
        self.native.run("engine_columns", arguments, x, self.order, moved)
        self.inner.into(moved, bias, out)


class NativeJoined(NativeComposite):
    """Each part writes its columns of the result."""

    def __init__(self, native: Native, packed: Joined, inner: Sequence[Writes]) -> None:
        super().__init__(native, packed)
        self.sizes, self.inner = [part.outputs for part in packed.parts], tuple(inner)

    def part(self, begin: int, end: int) -> LinearKernel | None:
        """See the contract: the parts of the parts that lie there."""
        made, start, cuts = copy(self), 0, []
        for size, kernel in zip(self.sizes, self.inner, strict=True):
            first, last = max(begin - start, 0), min(end - start, size)
            if first < last:
                cuts.append((last - first, kernel if last - first == size else kernel.part(first, last)))
            start += size
        if any(kernel is None for _, kernel in cuts):
            return None
        made.sizes, made.inner, made.outputs = [size for size, _ in cuts], tuple(kernel for _, kernel in cuts), end - begin
        return made

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See the base."""
        start = 0
        for size, kernel in zip(self.sizes, self.inner, strict=True):
            kernel.into(x, None if bias is None else bias[start : start + size], out[:, start : start + size])
            start += size


class NativeScaled(NativeComposite):
    """Multiplies the activations in float32."""

    def __init__(self, native: Native, packed: ScaledInputs, inner: Writes) -> None:
        super().__init__(native, packed)
        self.inner, self.factor = inner, packed.factor.contiguous()

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See the base."""
        x = self.rows(x)
        scaled = torch.empty(x.shape, dtype=x.dtype)
        arguments = Round(factor=self.factor.data_ptr())
        run_round(self.native, arguments, x, scaled, self.factor)
        self.inner.into(scaled, bias, out)


class NativeRounded(NativeComposite):
    """Rounds the activations, to float32, in which rounded values are exact."""

    def __init__(self, native: Native, packed: RoundedInputs, inner: Writes) -> None:
        super().__init__(native, packed)
        self.inner, self.rounding = inner, packed.rounding
        self.template, self.kept = arguments_of(packed.rounding)

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See the base."""
        x = self.rows(x)
        values = torch.empty(x.shape, dtype=torch.float32)
        run_round(self.native, Round.from_buffer_copy(self.template), x, values, *self.kept)
        self.inner.into(values, bias, out)


class NativeIntegers(NativeComposite):
    """8-bit integers times integers: activations with one scale per row, or one for all, are multiplied as what they are."""

    def __init__(self, native: Native, packed: RoundedInputs, inner: NativeLinear) -> None:
        super().__init__(native, packed)
        self.inner = inner
        self.group = activation_group(inner.panels.group, inner.panels.inputs)
        rounding = packed.rounding
        self.top, self.upper = rounding.top or TOP["int8"], rounding.upper or 0.0
        self.scale = None if rounding.scale is None else rounding.scale.float().reshape(1).clone()

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """See the base."""
        x = self.rows(x)
        arguments, kept = self.inner.arguments(x, bias, out)
        arguments.out_stride, arguments.x_group = out.stride(0), self.group
        quantized = torch.empty(self.inner.quantized_bytes(arguments), dtype=torch.uint8)
        arguments.quantized = quantized.data_ptr()
        scale = None if self.scale is None else self.scale.data_ptr()
        rounded = RoundIntegers(LinearArgs.from_buffer_copy(arguments), scale, self.top, self.upper)
        self.native.run("engine_round_integers", rounded, *kept, quantized, self.scale)
        self.native.run("engine_linear", arguments, *kept, quantized)


def run_round(native: Native, arguments: Round, x: Tensor, out: Tensor, *kept: object) -> None:
    """x [rows, size] → ``out``, contiguous, as the arguments say."""
    arguments.x, arguments.out, arguments.x_stride = x.data_ptr(), out.data_ptr(), x.stride(0)
    arguments.rows, arguments.size = x.shape
    arguments.type, arguments.out_type = element_type(x.dtype), element_type(out.dtype)
    native.run("engine_round", arguments, x, out, *kept)


def as_integers(rounding: ActivationRounding) -> bool:
    """Whether rounded activations are integers times a scale of the whole row."""
    return rounding.kind == "int8" and rounding.group == 0 and rounding.zero is None and not rounding.asymmetric


def linear_kernel(native: Native, packed: PackedWeight) -> LinearKernel | None:
    """The native kernel of a canonical layout, or None. An exclusive dense weight's memory is given back."""
    return _kernel(native, packed) if takes(packed) else None


def _kernel(native: Native, packed: PackedWeight) -> NativeLinear | NativeComposite:
    if isinstance(packed, Permuted):
        return NativePermuted(native, packed, _kernel(native, packed.inner))
    if isinstance(packed, Joined):
        return NativeJoined(native, packed, [_kernel(native, part) for part in packed.parts])
    if isinstance(packed, ScaledInputs):
        return NativeScaled(native, packed, _kernel(native, packed.inner))
    if isinstance(packed, RoundedInputs):
        inner = _kernel(native, packed.inner)
        if isinstance(inner, NativeLinear) and inner.panels.type in INTEGERS and as_integers(packed.rounding):
            return NativeIntegers(native, packed, inner)
        return NativeRounded(native, packed, inner)
    return leaf_kernel(native, packed)
