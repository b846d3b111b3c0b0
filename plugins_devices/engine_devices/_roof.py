"""What the processor can do at most, measured now with the native library: reading memory, multiplying in registers."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine_devices._native import ELEMENT_TYPES, Operation

if TYPE_CHECKING:
    from engine_devices._native import Native

#: Far beyond any cache.
READ_BYTES = 512 << 20
#: Of passes each: processors sustain less than they do in their first tenths of a second.
SECONDS = 1.0
#: Calls of a pass that multiplies.
MULTIPLY_CALLS = 32


class ReadRoof(ctypes.Structure):
    """``read_args`` of native/roof.cpp."""

    _fields_ = (("memory", ctypes.c_void_p), ("bytes", ctypes.c_int64), ("sink", ctypes.c_void_p))


class MultiplyRoof(ctypes.Structure):
    """``multiply_args`` of native/roof.cpp."""

    _fields_ = (("rounds", ctypes.c_int64), ("kind", ctypes.c_int32), ("sink", ctypes.c_void_p))


def measure(native: Native, dtype: str) -> dict[str, float]:
    """See :meth:`engine.plugin.Device.limits`. A dtype that the processor does not multiply itself counts as float32."""
    reads = _read(native)
    kind = ELEMENT_TYPES[dtype] if dtype in ("float32", "bfloat16", "int8") else ELEMENT_TYPES["float32"]
    native.cdll.engine_multiply_roof_operations.restype = ctypes.c_int64
    if not native.cdll.engine_multiply_roof_operations(kind):
        kind = ELEMENT_TYPES["float32"]
    multiplied = _multiply(native, kind)
    return {
        "read_bytes": statistics.median(reads), "read_bytes_best": max(reads),
        "operations": statistics.median(multiplied), "operations_best": max(multiplied),
    }  # fmt: skip


def _read(native: Native) -> list[float]:
    """Bytes per second of passes over a buffer in huge pages."""
    import torch

    from engine.plugin.host_memory import zeros

    buffer, sink = zeros((READ_BYTES,), torch.uint8), ctypes.c_int32()
    buffer.fill_(1)
    arguments = ReadRoof(buffer.data_ptr(), READ_BYTES, ctypes.addressof(sink))
    return [READ_BYTES / seconds for seconds in _passes(lambda: native.run("engine_read_roof", arguments))]


def _multiply(native: Native, kind: int) -> list[float]:
    """Operations per second of all threads: a pass is a list, so that threads that wake late join in the middle of it."""
    rounds, sink = 1 << 19, ctypes.c_float()
    arguments = MultiplyRoof(rounds, kind, ctypes.addressof(sink))
    entry = Operation(native.address("engine_multiply_roof"), ctypes.addressof(arguments))
    calls = (Operation * MULTIPLY_CALLS)(*[entry] * MULTIPLY_CALLS)
    each = native.cdll.engine_multiply_roof_operations(kind) * rounds * native.threads * MULTIPLY_CALLS
    return [each / seconds for seconds in _passes(lambda: native.run_list(calls))]


def _passes(body: Callable[[], None]) -> list[float]:
    """Seconds of each pass, the first left out."""
    body()
    taken: list[float] = []
    while sum(taken) < SECONDS or len(taken) < 3:
        began = time.perf_counter()
        body()
        taken.append(time.perf_counter() - began)
    return taken
