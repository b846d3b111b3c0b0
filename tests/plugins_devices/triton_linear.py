"""Run in a process of its own: the Triton kernels of linear layers, interpreted or on a GPU (``run``), or compiled for GPUs (``compile``).

Interpreting needs TRITON_INTERPRET=1 before Triton is imported; compiling needs it unset. One JSON line per case.
"""

from __future__ import annotations

import json
import sys
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget

from engine.layers.packed_quantized import Codebook, GroupedInteger, ScaledFloat8
from engine_devices import _cuda_linear, _triton_linear
from tests.core.attention.compile_kernels import CaughtKernel, source

OPTIONS = ("num_warps", "num_stages")


def packed(kind: str, outputs: int, inputs: int, group: int):
    make = torch.Generator().manual_seed(outputs + inputs)
    weight = torch.randn(outputs, inputs, generator=make) / inputs**0.5
    group = group or inputs
    if kind.startswith("int"):
        return GroupedInteger.quantize(weight, bits=int(kind[3]), group=group, asymmetric=kind.endswith("shift"))
    if kind.startswith("float8"):
        dtype = torch.float8_e5m2 if "e5m2" in kind else torch.float8_e4m3fn
        rows = {"tensor": outputs, "channel": 1, "block": 128, "e5m2": 1}[kind.partition(" ")[2]]
        return ScaledFloat8.quantize(weight, dtype=dtype, rows=rows, columns=group)
    bits = int(kind[5])
    codes = torch.randint(0, 1 << bits, (outputs, inputs), generator=make)
    scale = torch.rand(outputs, -(-inputs // group), generator=make) / inputs**0.5
    dtype = torch.float8_e4m3fn if "outer" in kind else torch.float32
    outer = torch.rand(outputs, generator=make) if "outer" in kind else None
    return Codebook.of(codes, torch.linspace(-1, 1, 1 << bits), scale.to(dtype), bits=bits, group=group, outer=outer)


def run(case: dict, device: str) -> dict:
    """``error``: relative to the float64 product of the dequantized weight. ``alone``: a first row by itself has the same bits."""
    weight = packed(case["kind"], case["outputs"], case["inputs"], case["group"])
    make = torch.Generator().manual_seed(1)
    x = torch.randn(case["rows"], case["inputs"], generator=make).to(getattr(torch, case["dtype"]))
    bias = torch.randn(case["outputs"], generator=make).to(x.dtype) if case["rows"] % 2 else None
    wanted = torch.nn.functional.linear(x.double(), weight.dequantize(torch.float64), None if bias is None else bias.double())
    for name, value in vars(weight).items():
        if isinstance(value, torch.Tensor):
            setattr(weight, name, value.to(device))
    kernel = _cuda_linear.linear_kernel(weight)
    assert kernel is not None
    there = None if bias is None else bias.to(device)
    got = kernel.apply(x.to(device), there)
    alone = kernel.apply(x[:1].to(device), there)
    error = (got.cpu().double() - wanted).norm() / wanted.norm()
    return {"error": float(error), "dtype": str(got.dtype), "alone": torch.equal(alone, got[:1])}


def compile_case(case: dict) -> list[dict]:
    """What each launch takes of a GPU of that capability."""
    weight = packed(case["kind"], case["outputs"], case["inputs"], case["group"])
    kernel = _cuda_linear.linear_kernel(weight)
    assert kernel is not None
    launches: list = []
    names = ("linear_kernel", "sum_kernel")
    with patch.multiple(_triton_linear, **{name: CaughtKernel(getattr(_triton_linear, name), launches) for name in names}):
        kernel.apply(torch.zeros(case["rows"], case["inputs"], dtype=getattr(torch, case["dtype"])), None)
    found = []
    for jit, grid, args, kwargs in launches:
        options = {name: kwargs[name] for name in OPTIONS if name in kwargs}
        built = triton.compile(source(jit, args, kwargs), target=GPUTarget("cuda", case["capability"], 32), options=options)
        found.append({
            "kernel": jit.__name__, "grid": list(grid), "shared": built.metadata.shared, "cubin": len(built.asm["cubin"]),
        })  # fmt: skip
    return found


def main() -> None:
    what = sys.argv[1]
    if what != "compile" and _cuda_linear.INTERPRETING is (what != "cpu"):
        sys.exit(f"device {what}, interpreting: {_cuda_linear.INTERPRETING}")
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(compile_case(case) if what == "compile" else run(case, what)), flush=True)


if __name__ == "__main__":
    main()
