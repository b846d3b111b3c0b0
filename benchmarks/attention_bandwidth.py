"""Decode bandwidth of the built-in Triton attention as a share of the device's copy bandwidth.

    python benchmarks/attention_bandwidth.py [--batch 1 16 64] [--context 1024 8192] [--heads 32 --kv-heads 8 --head-dim 128]

Needs a CUDA device and the engine on the path. Bytes counted for attention are those of K and V that must be read; for the
copy, bytes read and written. Every timing is the median of calls replayed as a CUDA graph, so launch overhead is left out.
"""


from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

import torch

from engine.attention import built_in
from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.facts import AttentionSpec


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--context", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--layers", type=int, default=8, help="layers with a cache of their own, so that L2 holds no keys")
    return parser.parse_args()


def seconds(body: Callable[[], object], repeats: int = 20) -> float:
    """Median time of one ``body``, recorded as a graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        body()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes per second, reads and writes of a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source))


def decode_bandwidth(options: argparse.Namespace, batch: int, context: int) -> float:
    """Bytes of K and V per second, pages in random order."""
    spec = AttentionSpec(options.heads, options.kv_heads, options.head_dim, options.head_dim**-0.5)
    backend, device, dtype = built_in("cuda"), torch.device("cuda"), getattr(torch, options.dtype)
    pages = -(-context // options.block_size)
    caches = [
        backend.allocate(spec, batch * pages, options.block_size, dtype, device).normal_() for _ in range(options.layers)
    ]
    table = torch.randperm(batch * pages, device=device).to(torch.int32).view(batch, pages)
    last = (context - 1) % options.block_size
    rows = AttentionBatch(
        query_start=torch.arange(batch + 1, dtype=torch.int32, device=device),
        seq_lens=torch.full((batch,), context, dtype=torch.int32, device=device), block_table=table,
        slots=table[:, -1].long() * options.block_size + last, block_size=options.block_size,
        max_query_len=1, max_seq_len=context,
    )  # fmt: skip
    q = torch.randn(batch, options.heads, options.head_dim, dtype=dtype, device=device)
    k, v = torch.randn(2, batch, options.kv_heads, options.head_dim, dtype=dtype, device=device)

    def step() -> None:
        for cache in caches:
            backend.attend(q, k, v, cache, rows, spec)

    moved = 2 * batch * context * options.kv_heads * options.head_dim * dtype.itemsize * options.layers
    return moved / seconds(step)


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("attention_bandwidth needs a CUDA device")
    options = arguments()
    copy = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: copies {copy / 1e9:.0f} GB/s")
    print(
        f"{options.heads} heads, {options.kv_heads} KV heads, head_dim {options.head_dim}, {options.dtype}, "
        f"pages of {options.block_size}, {options.layers} layers"
    )
    for batch in options.batch:
        for context in options.context:
            needed = 2 * batch * context * options.kv_heads * options.head_dim * 4 * options.layers
            if needed > torch.cuda.mem_get_info()[0]:
                print(f"batch {batch:4d}  context {context:6d}  does not fit")
                continue
            rate = decode_bandwidth(options, batch, context)
            torch.cuda.empty_cache()
            print(f"batch {batch:4d}  context {context:6d}  {rate / 1e9:7.0f} GB/s  {rate / copy:6.1%} of copy")


if __name__ == "__main__":
    main()
