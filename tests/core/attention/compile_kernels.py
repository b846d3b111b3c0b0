"""Run in a process of its own: compile every launch of the Triton attention for given GPUs; one JSON line per kernel.

No GPU is needed: launches are caught, and each is compiled for the target with the arguments it would have had.
"""

from __future__ import annotations

import json
import sys
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.attention import triton_paged
from tests.core.attention.attention_cases import Case, make

KERNELS = ("store_kernel", "decode_kernel", "merge_kernel", "prefill_kernel")
POINTERS = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64",
    torch.float8_e4m3fn: "*fp8e4nv", torch.float8_e5m2: "*fp8e5", torch.int8: "*i8", torch.uint8: "*u8",
}  # fmt: skip
OPTIONS = ("num_warps", "num_stages")


class CaughtKernel:
    """Stands for a kernel: ``kernel[grid](...)`` is noted instead of run."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.launches.append((self.kernel, grid, args, kwargs))


def launches_of(case: Case) -> list:
    backend = triton_paged.TritonAttention()
    inputs = make(case, backend)
    caught: list = []
    kernels = {name: CaughtKernel(getattr(triton_paged, name), caught) for name in KERNELS}
    with patch.multiple(triton_paged, **kernels):
        backend.attend(inputs.q, inputs.k, inputs.v, inputs.cache, inputs.batch, case.spec, inputs.sinks)
    return caught


def source(kernel, args, kwargs) -> ASTSource:
    """The arguments as a launch would specialize them: aligned pointers, integers by value 1 and divisibility by 16."""
    signature, constants, attrs = {}, {}, {}
    values = dict(zip((p.name for p in kernel.params), args, strict=False)) | kwargs
    for index, param in enumerate(kernel.params):
        value = values[param.name]
        if isinstance(value, torch.Tensor):
            signature[param.name] = POINTERS[value.dtype]
            attrs[(index,)] = [["tt.divisibility", 16]]
        elif param.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[param.name], constants[param.name] = "constexpr", value
        elif isinstance(value, int):
            signature[param.name] = "i32"
            if value % 16 == 0:
                attrs[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[param.name] = "fp32"
    return ASTSource(kernel, signature, constants, attrs)


def compile_case(case: Case, capability: int) -> None:
    for kernel, grid, args, kwargs in launches_of(case):
        options = {name: kwargs[name] for name in OPTIONS if name in kwargs}
        target = GPUTarget("cuda", capability, 32)
        built = triton.compile(source(kernel, args, kwargs), target=target, options=options)
        line = {
            "kernel": kernel.__name__, "capability": capability, "case": repr(case), "grid": list(grid),
            "shared": built.metadata.shared, "cubin": len(built.asm["cubin"]), "options": options,
        }  # fmt: skip
        print(json.dumps(line), flush=True)


def main() -> None:
    for line in sys.stdin:
        fields = json.loads(line)
        capability = fields.pop("capability")
        fields["work"] = tuple(map(tuple, fields["work"]))
        compile_case(Case(**fields), capability)


if __name__ == "__main__":
    main()
