"""Native paged attention on this machine: KV bytes read per second beside the reading limit of the same run.

    python benchmarks/cpu_attention.py [--threads 2] [--batch 1 16] [--context 512 4096] [--prefill 512] [--dtype bfloat16]

Each figure is a median over steps of all layers, random pages of 16 tokens, in turn with passes over a large buffer, so
that a busy minute falls on both. Caches of all layers together exceed the processor's. Prefill counts the
multiplications and additions of visible scores alone, Q·K and P·V.
"""


from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import torch

from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.facts import AttentionSpec
from engine_devices._attention import NativeAttention
from engine_devices._native import Absent, Native, Operation, load
from engine_devices._roof import READ_BYTES, ReadRoof

BLOCK = 16


def timed(body: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


class Roof:
    """How fast memory can be read, measured whenever asked."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._memory = torch.ones(READ_BYTES, dtype=torch.uint8)
        self._sink = torch.zeros(16)
        self._arguments = ReadRoof(self._memory.data_ptr(), READ_BYTES, self._sink.data_ptr())

    def read(self) -> float:
        """GB/s."""
        return READ_BYTES / timed(lambda: self._native.run("engine_read_roof", self._arguments)) / 1e9


class Steps:
    """A step's attention of all layers, as one list of operations."""

    def __init__(self, native: Native, spec: AttentionSpec, layers: int, queries: int, lengths: list[int], dtype: torch.dtype) -> None:
        backend = NativeAttention(native)
        self._native = native
        pages = [-(-length // BLOCK) for length in lengths]
        held = max(2 * sum(pages), (32 << 20) // backend.page_bytes(spec, BLOCK, dtype.itemsize))
        order = torch.randperm(held)[: sum(pages)].to(torch.int32)
        table = torch.zeros((len(lengths), max(pages)), dtype=torch.int32)
        for row, part in zip(table, order.split(pages), strict=True):
            row[: len(part)] = part
        start = torch.arange(len(lengths) + 1, dtype=torch.int32) * queries
        rows = queries * len(lengths)
        slots = torch.full((rows,), -1, dtype=torch.int64)
        batch = AttentionBatch(start, torch.tensor(lengths, dtype=torch.int32), table, slots, BLOCK, queries, max(lengths))
        q = torch.randn(rows, spec.num_heads, spec.head_dim).to(dtype)
        native.tape = []
        for _ in range(layers):
            cache = backend.allocate(spec, held, BLOCK, dtype, torch.device("cpu"))
            cache.fill_(0.5)
            backend.read(q, cache, batch, spec)
        self._calls, native.tape = native.tape, None
        self._operations = (Operation * len(self._calls))()
        for operation, call in zip(self._operations, self._calls, strict=True):
            operation.kernel, operation.arguments = native.address(call.kernel), ctypes.addressof(call.arguments)
        self.bytes = layers * sum(lengths) * spec.num_kv_heads * spec.head_dim * 2 * dtype.itemsize
        seen = sum(queries * length - queries * (queries - 1) // 2 for length in lengths)
        self.operations = layers * seen * spec.num_heads * spec.head_dim * 4

    def run(self) -> None:
        """One step."""
        self._native.run_list(self._operations)


def measure(roof: Roof, steps: Steps, repeats: int) -> str:
    """One line."""
    steps.run()
    seconds, limits = [], []
    for _ in range(repeats):
        limits.append(roof.read())
        seconds.append(timed(steps.run))
    median, limit = statistics.median(seconds), statistics.median(limits)
    speed = steps.bytes / median / 1e9
    return f"{median * 1e3:8.2f} ms {speed:6.1f} GB/s ({speed / limit:4.0%} of {limit:4.1f}) {steps.operations / median / 1e9:7.0f} GFLOPS"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--context", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--prefill", type=int, nargs="+", default=[512])
    parser.add_argument("--heads", type=int, nargs=3, default=[16, 8, 128], metavar=("QUERY", "KV", "SIZE"))
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--dtype", choices=["bfloat16", "float32", "float16"], default="bfloat16")
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    native = load()
    if isinstance(native, Absent):
        raise SystemExit(f"there are no native kernels: {native.reason}")
    native.start(asked.threads)
    torch.set_num_threads(asked.threads)
    heads, kv_heads, size = asked.heads
    spec, dtype = AttentionSpec(heads, kv_heads, size, size**-0.5), getattr(torch, asked.dtype)
    roof = Roof(native)
    print(f"{native.isa}, {native.threads} threads, {asked.dtype}, {heads}/{kv_heads} heads of {size}, {asked.layers} layers")
    for context in asked.context:
        for batch in asked.batch:
            # Layers that together are at least as large as usual caches and not larger than 2 GiB.
            layers = max(1, min(asked.layers, (2 << 30) // (batch * context * kv_heads * size * 2 * dtype.itemsize)))
            steps = Steps(native, spec, layers, 1, [context] * batch, dtype)
            print(f"decode  batch {batch:3} context {context:5} layers {layers:2}: {measure(roof, steps, asked.repeats)}", flush=True)
    for prompt in asked.prefill:
        steps = Steps(native, spec, asked.layers, prompt, [prompt], dtype)
        print(f"prefill {prompt:5} tokens: {measure(roof, steps, asked.repeats)}", flush=True)


if __name__ == "__main__":
    main()
