"""Native linear layers on this machine: GB/s and GFLOPS beside the roofs measured in the same run.

    python benchmarks/cpu_linear.py [--threads 2] [--rows 1 4 16 512] [--shapes 1024x4096 …] [--formats bf16 …]

Weights rotate through copies that together exceed the caches. Roof and layers are timed in turn, so that a busy minute
falls on all of them; the figures are medians.
"""


from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import torch

from engine.layers.packed import DensePacked
from engine.layers.packed_quantized import GroupedInteger, ScaledFloat8
from engine.plugin import LinearKernel, PackedWeight
from engine_devices._composite import linear_kernel
from engine_devices._linear import NativeLinear
from engine_devices._native import Absent, Native, Operation, load
from engine_devices._weights import allocate

ROTATION = 1 << 30
SHAPES = ("1024x4096", "2048x1024", "1024x6144", "3072x1024", "4096x14336")
#: Weight format → dtype of activations.
FORMATS = {
    "bf16": torch.bfloat16, "f32": torch.float32, "f16": torch.float16, "int8": torch.bfloat16, "int8-g32": torch.bfloat16,
    "int4-g32": torch.bfloat16, "int4-g128": torch.bfloat16, "int4-g128-zero": torch.bfloat16, "fp8": torch.bfloat16,
    "int8-exact": torch.bfloat16, "int4-g128-exact": torch.bfloat16,
}  # fmt: skip


class ReadArgs(ctypes.Structure):
    """``read_args`` of native/roof.cpp."""

    _fields_ = (("memory", ctypes.c_void_p), ("bytes", ctypes.c_int64), ("sink", ctypes.c_void_p))


class MultiplyArgs(ctypes.Structure):
    """``multiply_args`` of native/roof.cpp."""

    _fields_ = (("rounds", ctypes.c_int64), ("kind", ctypes.c_int32), ("sink", ctypes.c_void_p))


def timed(body: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


class Roofs:
    """The machine's limits, measured whenever asked."""

    def __init__(self, native: Native) -> None:
        self.native = native
        self.memory = allocate(ROTATION, torch.uint8).zero_()
        self.sink = torch.zeros(16)

    def read(self) -> float:
        """GB/s."""
        arguments = ReadArgs(self.memory.data_ptr(), ROTATION, self.sink.data_ptr())
        return ROTATION / timed(lambda: self.native.run("engine_read_roof", arguments)) / 1e9

    def multiply(self, kind: int) -> float:
        """GFLOPS (or GOPS) in registers of ``engine_type`` kind; 0 where there is no instruction."""
        self.native.cdll.engine_multiply_roof_operations.restype = ctypes.c_int64
        rounds = 2_000_000
        operations = int(self.native.cdll.engine_multiply_roof_operations(kind)) * rounds * self.native.threads
        arguments = MultiplyArgs(rounds, kind, self.sink.data_ptr())
        return operations / timed(lambda: self.native.run("engine_multiply_roof", arguments)) / 1e9


def pack(weight: torch.Tensor, name: str) -> PackedWeight:
    """A random weight in that format, with scales in float16 as checkpoints have them."""
    if name in ("bf16", "f32", "f16"):
        return DensePacked(weight.to(FORMATS[name]))
    if name == "fp8":
        return ScaledFloat8((weight * 100).to(torch.float8_e4m3fn), torch.ones(1, 1), rows=weight.shape[0], columns=weight.shape[1])
    bits, _, rest = name.removeprefix("int").partition("-")
    group = int(rest.split("-")[0][1:]) if rest.startswith("g") else 0
    packed = GroupedInteger.quantize(weight, bits=int(bits), group=group, asymmetric="zero" in rest)
    packed.exact = rest.endswith("exact")
    packed.scale, packed.shift = packed.scale.half(), None if packed.shift is None else packed.shift.half()
    return packed


def rotation(native: Native, inputs: int, outputs: int, name: str) -> list[NativeLinear]:
    """Copies of one weight, enough to exceed the caches."""
    packed = pack(torch.randn(outputs, inputs) / inputs**0.5, name)
    kernels: list[LinearKernel | None] = [linear_kernel(native, packed) for _ in range(max(2, ROTATION // packed.nbytes()))]
    return [kernel for kernel in kernels if isinstance(kernel, NativeLinear)]


def measure(roofs: Roofs, kernels: list[NativeLinear], rows: int, dtype: torch.dtype) -> str:
    """One line of the table."""
    first = kernels[0].panels
    x = torch.randn(rows, first.inputs).to(dtype)
    floating = 2 * rows * first.inputs * first.outputs
    repeats = max(3, min(20, int(2e11 / (floating * len(kernels)))))
    native = roofs.native
    native.tape = []
    used = kernels if floating < 1e9 else kernels[:2]
    for kernel in used:
        kernel.apply(x, None)
    calls, native.tape = native.tape, None
    operations = (Operation * len(calls))()
    for operation, call in zip(operations, calls, strict=True):
        operation.kernel, operation.arguments = native.address(call.kernel), ctypes.addressof(call.arguments)
    seconds, roof = [], []
    for _ in range(repeats):
        roof.append(roofs.read())
        seconds.append(timed(lambda: native.run_list(operations)) / len(used))
    median, limit = statistics.median(seconds), statistics.median(roof)
    speed = first.nbytes / median / 1e9
    return f"{speed:7.1f} GB/s ({speed / limit:4.0%} of {limit:4.1f}) {floating / median / 1e9:8.0f} GFLOPS {median * 1e6:9.1f} us"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 512])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="INPUTSxOUTPUTS")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["bf16"])
    asked = parser.parse_args()
    native = load()
    if isinstance(native, Absent):
        raise SystemExit(f"there are no native kernels: {native.reason}")
    native.start(asked.threads)
    torch.set_num_threads(asked.threads)
    roofs = Roofs(native)
    peaks = " ".join(f"{name} {max(roofs.multiply(kind) for _ in range(5)):.0f}" for name, kind in (("f32", 0), ("bf16", 1), ("int8", 5)))
    roof = statistics.median(roofs.read() for _ in range(20))
    print(f"{native.isa}, {native.threads} threads; read roof {roof:.1f} GB/s; peaks {peaks} GFLOPS")
    for name in asked.formats:
        for shape in asked.shapes:
            inputs, outputs = map(int, shape.split("x"))
            kernels = rotation(native, inputs, outputs, name)
            for rows in asked.rows:
                print(f"{name:14} {shape:>11} rows {rows:4}: {measure(roofs, kernels, rows, FORMATS[name])}", flush=True)


if __name__ == "__main__":
    main()
