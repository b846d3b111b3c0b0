"""Memory for packed weights (huge pages where the kernel grants them), and packing into the native layouts."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

from engine_devices._native import ELEMENT_TYPES, Native

HUGE_PAGE = 2 << 20
PANEL = 32


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


class PackArgs(ctypes.Structure):
    """``pack_args`` of native/packing.cpp."""

    _fields_ = (
        ("weight", ctypes.c_void_p), ("packed", ctypes.c_void_p), ("stride", ctypes.c_int64),
        ("outputs", ctypes.c_int64), ("inputs", ctypes.c_int64), ("type", ctypes.c_int32),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Panels:
    """A weight in panels of 32 outputs (layouts: native/linear.h). ``scale`` None: dense."""

    weight: Tensor
    outputs: int
    inputs: int
    type: int
    scale: Tensor | None = None
    shift: Tensor | None = None
    group: int = 0
    factor: float = 1.0

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return sum(part.nbytes for part in (self.weight, self.scale, self.shift) if part is not None)


def pack_dense(native: Native, weight: Tensor) -> Panels:
    """[outputs, inputs] of float32, bfloat16 or float16 → panels; the pool's threads share the work."""
    outputs, inputs = weight.shape
    if weight.stride(1) != 1:
        weight = weight.contiguous()
    panels = -(-outputs // PANEL)
    packed = allocate(panels * PANEL * (inputs + inputs % 2), weight.dtype)
    kind = ELEMENT_TYPES[str(weight.dtype).removeprefix("torch.")]
    arguments = PackArgs(weight.data_ptr(), packed.data_ptr(), weight.stride(0), outputs, inputs, kind)
    native.run("engine_pack_dense", arguments, weight, packed)
    return Panels(packed, outputs, inputs, kind)
