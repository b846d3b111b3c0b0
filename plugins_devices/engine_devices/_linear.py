"""Linear layers on the native kernels."""

from __future__ import annotations

import ctypes
import os

import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.layers.packed import DensePacked
from engine.layers.packed_parts import pieces_of
from engine.layers.packed_quantized import (
    Codebook,
    GroupedInteger,
    Joined,
    Permuted,
    RoundedInputs,
    RowBlocks,
    ScaledFloat8,
    ScaledInputs,
)  # fmt: skip
from engine.plugin import LinearKernel, LinearWork, PackedWeight
from engine_devices._arguments import address, element_type, rounded
from engine_devices._gather import gather
from engine_devices._native import Native
from engine_devices._weights import Panels, group_for_panels, pack_codes, pack_dense, pack_float8, pack_integer


class LinearArgs(ctypes.Structure):
    """``linear_args`` of native/linear.h. ``gate``: see GATES. ``once``: tapes set it (:func:`engine_devices._tape.pack_calls`)."""

    _fields_ = (
        ("x", ctypes.c_void_p), ("weight", ctypes.c_void_p), ("scale", ctypes.c_void_p), ("shift", ctypes.c_void_p),
        ("bias", ctypes.c_void_p), ("residual", ctypes.c_void_p), ("out", ctypes.c_void_p),
        ("best_value", ctypes.c_void_p), ("best_place", ctypes.c_void_p), ("best_found", ctypes.c_void_p), ("quantized", ctypes.c_void_p),
        ("table", ctypes.c_void_p), ("outer", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64), ("residual_stride", ctypes.c_int64), ("out_stride", ctypes.c_int64),
        ("rows", ctypes.c_int32), ("inputs", ctypes.c_int32), ("outputs", ctypes.c_int32),
        ("x_type", ctypes.c_int32), ("weight_type", ctypes.c_int32), ("scale_type", ctypes.c_int32),
        ("bias_type", ctypes.c_int32), ("out_type", ctypes.c_int32), ("group", ctypes.c_int32),
        ("x_group", ctypes.c_int32), ("gate", ctypes.c_int32), ("factor", ctypes.c_float), ("once", ctypes.c_int32),
        ("first_unit", ctypes.c_int32), ("units", ctypes.c_int32),
    )  # fmt: skip


class GatherArgs(ctypes.Structure):
    """``gather_args`` of native/packing.cpp."""

    _fields_ = (
        ("packed", ctypes.c_void_p), ("ids", ctypes.c_void_p), ("out", ctypes.c_void_p), ("out_stride", ctypes.c_int64),
        ("count", ctypes.c_int64), ("outputs", ctypes.c_int64), ("inputs", ctypes.c_int64),
        ("type", ctypes.c_int32), ("out_type", ctypes.c_int32), ("scale", ctypes.c_float),
    )  # fmt: skip


#: Rows that every thread quantizes for itself; more are quantized once, by an operation before the product.
OWN_ROWS = 8
#: Layouts that do something to the activations of an ``inner`` weight.
COMPOSITE = (Permuted, RoundedInputs, ScaledInputs)
#: ``linear_args.gate`` by the activations' names in the operations contract.
GATES = {"silu": 1, "gelu_tanh": 2}


class NativeLinear(LinearKernel):
    """Multiplies by one weight in panels.

    ``x_group`` > 0: 16-bit activations are rounded to 8 bits, that many to a scale; float32 ones are taken as they are.
    """

    def __init__(self, native: Native, panels: Panels, x_group: int = 0) -> None:
        self.native = native
        self.panels = panels
        self.x_group = x_group
        self.gathers = True
        self.dtype = panels.weight.dtype
        self._quantized_bytes = native.cdll.engine_quantized_bytes
        self._quantized_bytes.restype = ctypes.c_int64
        scale = panels.scale
        self._template = LinearArgs(
            weight=panels.weight.data_ptr(), scale=address(scale), shift=address(panels.shift),
            table=address(panels.table), outer=address(panels.outer),
            inputs=panels.inputs, outputs=panels.outputs, weight_type=panels.type,
            scale_type=0 if scale is None else element_type(scale.dtype),
            group=panels.group, x_group=x_group, factor=panels.factor,
        )  # fmt: skip

    def work(self, dtype: str) -> tuple[LinearWork, ...]:
        """What the panels hold, multiplied in 8 bits where activations are rounded to them."""
        panels, rounds = self.panels, self._template.x_group and dtype != "float32"
        return (LinearWork(panels.outputs * panels.inputs, panels.nbytes, "int8" if rounds else dtype),)

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[…, inputs] → […, outputs], in x's dtype. x: float32, bfloat16 or float16, its last axis contiguous."""
        out = torch.empty((*x.shape[:-1], self.panels.outputs), dtype=x.dtype)
        self.into(x, bias, out.view(-1, self.panels.outputs))
        return out

    def part(self, begin: int, end: int) -> NativeLinear | None:
        """See the contract; of whole panels."""
        panels = self.panels.part(begin, end)
        return None if panels is None else NativeLinear(self.native, panels, self.x_group)

    def into(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """[…, inputs] → ``out`` [rows, outputs] of any float dtype, rows any distance apart."""
        arguments, kept = self.arguments(x, bias, out)
        arguments.out_stride = out.stride(0)
        if arguments.x_group and arguments.rows > OWN_ROWS:
            quantized = torch.empty(self.quantized_bytes(arguments), dtype=torch.uint8)
            arguments.quantized = quantized.data_ptr()
            kept = (*kept, quantized)
            quantize = LinearArgs.from_buffer_copy(arguments)
            # It writes nothing else: operations are fused where nobody else knows their results.
            quantize.out = quantize.bias = None
            self.native.run("engine_quantize", quantize, *kept)
        self.native.run("engine_linear", arguments, *kept)

    def quantized_bytes(self, arguments: LinearArgs) -> int:
        """Bytes that x takes, rounded to 8 bits."""
        return int(self._quantized_bytes(ctypes.byref(arguments)))

    def arguments(self, x: Tensor, bias: Tensor | None, out: Tensor) -> tuple[LinearArgs, tuple[object, ...]]:
        """The operation's arguments without gate and residual, and what their pointers point to."""
        flat = x if x.dim() == 2 else x.reshape(-1, self.panels.inputs)
        if flat.stride(1) != 1:
            flat = flat.contiguous()
        arguments = self.template(x.dtype)
        arguments.x = flat.data_ptr()
        arguments.out = out.data_ptr()
        arguments.rows = len(flat)
        arguments.x_stride = flat.stride(0)
        arguments.out_stride = self.panels.outputs
        arguments.out_type = element_type(out.dtype)
        if bias is not None:
            arguments.bias = bias.data_ptr()
            arguments.bias_type = element_type(bias.dtype)
        return arguments, (flat, bias, out, self.panels)

    def template(self, dtype: torch.dtype) -> LinearArgs:
        """What all products with activations of that dtype have in common."""
        arguments = LinearArgs.from_buffer_copy(self._template)
        arguments.x_type = element_type(dtype)
        if dtype == torch.float32:
            arguments.x_group = 0
        return arguments

    def gather(self, ids: Tensor, scale: float | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Rows ``ids`` (int64 [T]) of a dense weight or, in ``dtype``, of a quantized one."""
        panels = self.panels
        ids = ids.contiguous()
        if panels.scale is not None:
            return gather(self.native, panels, ids, dtype or torch.float32, scale)
        out = torch.empty((len(ids), panels.inputs), dtype=self.dtype)
        kind = element_type(self.dtype)
        factor = 0.0 if scale is None else rounded(scale, self.dtype)
        arguments = GatherArgs(
            panels.weight.data_ptr(), ids.data_ptr(), out.data_ptr(), panels.inputs, len(ids), panels.outputs, panels.inputs,
            kind, kind, factor,
        )  # fmt: skip
        self.native.run("engine_gather", arguments, ids, out, panels)
        return out


def takes(packed: PackedWeight) -> bool:
    """Whether there is a native kernel for that weight, with all that it is made of."""
    inner = packed.parts if isinstance(packed, Joined) else [packed.inner] if isinstance(packed, COMPOSITE) else []
    if inner:
        return all(takes(part) for part in inner)
    if not packed.outputs or not packed.inputs:
        return False
    if isinstance(packed, DensePacked):
        return pieces_of(packed)[0].dtype in (torch.float32, torch.bfloat16, torch.float16)
    if isinstance(packed, RowBlocks):
        return packed.kind.nearest is not None and not exact_activations()
    if isinstance(packed, ScaledFloat8):
        return group_for_panels(packed.columns, packed.inputs) is not None
    return isinstance(packed, (GroupedInteger, Codebook)) and group_for_panels(packed.group, packed.inputs) is not None


def leaf_kernel(native: Native, packed: PackedWeight) -> NativeLinear:
    """The native kernel for a canonical layout that :func:`takes` takes and that is not made of others.

    An exclusive dense weight's memory is given back.
    """
    panels, x_group = None, 0
    if isinstance(packed, DensePacked):
        panels = pack_dense(native, pieces_of(packed))
    elif isinstance(packed, GroupedInteger):
        panels, x_group = _integer_panels(native, packed)
    elif isinstance(packed, RowBlocks) and packed.kind.nearest is not None:
        panels, x_group = _integer_panels(native, packed.kind.nearest(packed.rows))
    elif isinstance(packed, ScaledFloat8):
        panels = pack_float8(native, packed)
    elif isinstance(packed, Codebook):
        panels = pack_codes(native, packed)
    if panels is None:
        raise ValueError(f"no native kernel takes {packed.layout} of this form")
    if isinstance(packed, DensePacked) and packed.exclusive:
        packed.release()
        native.give_back(panels.nbytes)
    return NativeLinear(native, panels, x_group)


def _integer_panels(native: Native, packed: GroupedInteger) -> tuple[Panels | None, int]:
    """The panels, and the inputs per scale of 8-bit activations (0: they are not rounded)."""
    panels = pack_integer(native, packed)
    exact = packed.exact or exact_activations() or panels is None
    return panels, 0 if exact or panels is None else activation_group(panels.group, panels.inputs)


def activation_group(group: int, inputs: int) -> int:
    """Inputs per scale of 8-bit activations: up to 128, whole groups of the weight or whole parts of one."""
    padded = -(-inputs // group) * group
    return next(size for size in (128, 64, 32, 16) if padded % size == 0 and (group % size == 0 or size % group == 0))


def exact_activations() -> bool:
    """ENGINE_CPU_ACTIVATIONS: ``int8`` (the default) rounds 16-bit activations to 8 bits for integer weights, ``exact`` does not."""
    value = os.environ.get("ENGINE_CPU_ACTIVATIONS", "int8")
    if value not in ("int8", "exact"):
        raise ConfigError(f"ENGINE_CPU_ACTIVATIONS is {value!r}; it must be int8 or exact.", fix="unset ENGINE_CPU_ACTIVATIONS")
    return value == "exact"
