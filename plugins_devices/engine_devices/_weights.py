"""Memory for packed weights (huge pages where the kernel grants them), and packing into the native layouts."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.layers.packed_integer import unpack_planes
from engine.layers.packed_quantized import Codebook, GroupedInteger, ScaledFloat8, pack_nibbles
from engine_devices._native import ELEMENT_TYPES, Native

HUGE_PAGE = 2 << 20
PANEL = 32
#: Values that are unpacked to bytes at a time.
_AT_ONCE = 4 << 20


def allocate(count: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised elements; from 2 MiB on at a huge page's boundary, and huge pages are asked for."""
    size = count * dtype.itemsize
    if size < HUGE_PAGE:
        return torch.empty(count, dtype=dtype)
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr()
    start = -address % HUGE_PAGE
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # The last part of a huge page stays in small ones: it would cost memory that nobody uses.
        memory.madvise(mmap.MADV_HUGEPAGE, start, size // HUGE_PAGE * HUGE_PAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start)


class PackPiece(ctypes.Structure):
    """``pack_piece`` of native/packing.cpp."""

    _fields_ = (("weight", ctypes.c_void_p), ("stride", ctypes.c_int64), ("outputs", ctypes.c_int64))


class PackArgs(ctypes.Structure):
    """``pack_args`` of native/packing.cpp."""

    _fields_ = (
        ("pieces", ctypes.POINTER(PackPiece)), ("packed", ctypes.c_void_p), ("count", ctypes.c_int64), ("inputs", ctypes.c_int64),
        ("type", ctypes.c_int32),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Panels:
    """A weight in panels of 32 outputs (layouts: native/linear.h). ``scale`` None: dense. ``table`` and ``outer``: of codes."""

    weight: Tensor
    outputs: int
    inputs: int
    type: int
    scale: Tensor | None = None
    shift: Tensor | None = None
    group: int = 0
    factor: float = 1.0
    table: Tensor | None = None
    outer: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return sum(part.nbytes for part in (self.weight, self.scale, self.shift, self.outer) if part is not None)

    def part(self, begin: int, end: int) -> Panels | None:
        """The outputs [begin, end) in the same memory; None where they are no whole panels."""
        if begin % PANEL or (end % PANEL and end != self.outputs):
            return None
        panels = -(-self.outputs // PANEL)

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.view(panels, -1)[begin // PANEL : -(-end // PANEL)].view(-1)

        weight = self.weight.view(panels, -1)[begin // PANEL : -(-end // PANEL)].view(-1)
        return replace(self, weight=weight, outputs=end - begin, scale=cut(self.scale), shift=cut(self.shift), outer=cut(self.outer))


def pack_dense(native: Native, pieces: Sequence[Tensor]) -> Panels:
    """[rows, inputs] each, of float32, bfloat16 or float16, one below the other → panels; the pool's threads share the work."""
    if any(len(piece) % PANEL for piece in pieces[:-1]):
        pieces = (torch.cat(tuple(pieces)),)
    outputs, inputs = sum(len(piece) for piece in pieces), pieces[0].shape[1]
    row_size = inputs + inputs % 2
    packed = allocate(-(-outputs // PANEL) * PANEL * row_size, pieces[0].dtype)
    kind = ELEMENT_TYPES[str(packed.dtype).removeprefix("torch.")]
    adjacent = [piece if piece.stride(1) == 1 else piece.contiguous() for piece in pieces]
    listed = (PackPiece * len(adjacent))(*(PackPiece(piece.data_ptr(), piece.stride(0), len(piece)) for piece in adjacent))
    arguments = PackArgs(listed, packed.data_ptr(), len(adjacent), inputs, kind)
    native.run("engine_pack_dense", arguments, listed, adjacent, packed)
    return Panels(packed, outputs, inputs, kind)


class PackQuantizedArgs(ctypes.Structure):
    """``pack_quantized_args`` of native/packing.cpp."""

    _fields_ = (
        ("values", ctypes.c_void_p), ("packed", ctypes.c_void_p), ("stride", ctypes.c_int64), ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64), ("padded", ctypes.c_int64), ("type", ctypes.c_int32),
    )  # fmt: skip


def group_for_panels(group: int, inputs: int) -> int | None:
    """Inputs per scale as the kernels count them; None where they have no loop for it."""
    if group >= inputs:
        return -(-inputs // 32) * 32
    return group if group % 16 == 0 else None


def pack_integer(native: Native, packed: GroupedInteger) -> Panels | None:
    """Integers in panels; None for a group that the kernels cannot take.

    1 bit is kept in 2, 7 bits in 8, and where groups are no multiple of 32 up to 3 bits in 4, 5 and 6 in 8.
    """
    group = group_for_panels(packed.group, packed.inputs)
    if group is None:
        return None
    bits = {1: 2, 7: 8}.get(packed.bits, packed.bits)
    if group % 32:
        bits = 4 if bits <= 4 else 8
    kind = ELEMENT_TYPES[f"int{bits}"]
    if bits in (4, 8):
        integers = packed.values
        if packed.bits != bits:
            integers = pack_nibbles(packed.integers()) if bits == 4 else packed.integers()
        values = _pack_values(native, integers, packed.inputs, group, kind)
    else:
        values = _pack_planes(native, packed, bits, group)
    scale, shift, factor = _pack_scales(packed.scale, packed.shift)
    return Panels(values, packed.outputs, packed.inputs, kind, scale, shift, group, factor)


def pack_float8(native: Native, packed: ScaledFloat8) -> Panels | None:
    """8-bit floats in panels; None for blocks that the kernels cannot take."""
    group = group_for_panels(packed.columns, packed.inputs)
    if group is None:
        return None
    kind = ELEMENT_TYPES[str(packed.values.dtype).removeprefix("torch.")]
    values = _pack_values(native, packed.values.view(torch.uint8), packed.inputs, group, kind)
    scale, _, factor = _pack_scales(packed.expanded_scale(), None)
    return Panels(values, packed.outputs, packed.inputs, kind, scale, None, group, factor)


def pack_codes(native: Native, packed: Codebook) -> Panels | None:
    """Codes in panels; None for a group that the kernels cannot take."""
    group = group_for_panels(packed.group, packed.inputs)
    if group is None:
        return None
    # a code is moved as an integer of 4 bits and a byte of a float are
    like = ELEMENT_TYPES["int4" if packed.bits == 4 else "float8_e4m3fn"]
    values = _pack_values(native, packed.codes, packed.inputs, group, like)
    scale, _, factor = _pack_scales(packed.scale, None)
    outer = packed.outer
    if outer is not None:
        outer = torch.nn.functional.pad(outer, (0, -len(outer) % PANEL)).contiguous()
    return Panels(
        values, packed.outputs, packed.inputs, ELEMENT_TYPES[f"codes{packed.bits}"], scale, None, group, factor,
        packed.table.contiguous(), outer,
    )  # fmt: skip


class PackPlanesArgs(ctypes.Structure):
    """``pack_planes_args`` of native/planes.cpp."""

    _fields_ = (
        ("values", ctypes.c_void_p), ("packed", ctypes.c_void_p), ("stride", ctypes.c_int64), ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64), ("padded", ctypes.c_int64), ("bits", ctypes.c_int32),
    )  # fmt: skip


def _pack_planes(native: Native, packed: GroupedInteger, bits: int, group: int) -> Tensor:
    """Slices of outputs become bytes and then planes: no layer is ever held with a byte per value."""
    padded = -(-packed.inputs // group) * group
    panels = -(-packed.outputs // PANEL)
    whole = allocate(panels * PANEL * padded * bits // 8, torch.uint8)
    step = max(1, _AT_ONCE // (PANEL * padded)) * PANEL
    for start in range(0, packed.outputs, step):
        rows = packed.values[start : start + step]
        integers = unpack_planes(rows, packed.inputs, packed.bits).contiguous()
        to = whole[start * padded * bits // 8 :]
        arguments = PackPlanesArgs(
            integers.data_ptr(), to.data_ptr(), integers.stride(0), len(rows), packed.inputs, padded, bits
        )  # fmt: skip
        native.run("engine_pack_planes", arguments, integers, to)
    return whole


def _pack_values(native: Native, values: Tensor, inputs: int, group: int, kind: int) -> Tensor:
    values = values.contiguous()
    outputs = len(values)
    padded = -(-inputs // group) * group
    size = -(-outputs // PANEL) * PANEL * padded
    packed = allocate(size // 2 if kind == ELEMENT_TYPES["int4"] else size, torch.uint8)
    arguments = PackQuantizedArgs(values.data_ptr(), packed.data_ptr(), values.stride(0), outputs, inputs, padded, kind)
    native.run("engine_pack_quantized", arguments, values, packed)
    return packed


def _pack_scales(scale: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor | None, float]:
    """Floats [outputs, groups] each → [panels, groups, 32], and the factor to multiply both by.

    In float16 where that loses nothing, after a power of two brought the largest near the top of its range. By one thread: there is
    little to do, and torch's threads wait for each other's whole time slices wherever something else computes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _scales_in_panels(scale.float(), None if shift is None else shift.float())
    finally:
        torch.set_num_threads(threads)


def _scales_in_panels(scale: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor | None, float]:
    both = [scale] if shift is None else [scale, shift]
    largest = max((float(part.abs().max()) for part in both if part.numel()), default=0.0)
    exponent = math.frexp(largest)[1] - 14 if 0 < largest < math.inf else 0
    factor = 2.0**exponent
    scaled = [part / factor for part in both]
    if all(torch.equal(part.half().float(), part) for part in scaled):
        panels = [_in_panels(part.half()) for part in scaled]
    else:
        panels, factor = [_in_panels(part) for part in both], 1.0
    return panels[0], panels[1] if shift is not None else None, factor


def _in_panels(scale: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(scale, (0, 0, 0, -len(scale) % PANEL))
    return padded.view(-1, PANEL, scale.shape[1]).transpose(1, 2).contiguous()
