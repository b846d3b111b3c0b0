"""Paged attention by the native kernels: pages of tiles, one call for the store and the attention of a layer."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from engine.errors import ConfigError
from engine.plugin import AttentionBackend
from engine.plugin.host_memory import zeros
from engine_devices._arguments import element_type

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin import AttentionSpec
    from engine.plugin.contracts.attention import AttentionBatch
    from engine_devices._native import Native

#: Tokens of one tile of keys, and dimensions of one register of values.
TILE = 16
LARGEST_HEAD = 1024
#: Floats for partial results of contexts that several threads share; touched only as far as used.
SCRATCH_FLOATS = 1 << 22
CACHE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)


class Pages(ctypes.Structure):
    """``engine_pages`` of native/pages.h."""

    _fields_ = (
        ("pages", ctypes.c_void_p), ("block_table", ctypes.c_void_p), ("columns", ctypes.c_int64), ("page_bytes", ctypes.c_int64),
        ("type", ctypes.c_int32), ("block_size", ctypes.c_int32), ("kv_heads", ctypes.c_int32), ("head_dim", ctypes.c_int32),
    )  # fmt: skip


class Attend(ctypes.Structure):
    """``engine_attend_arguments`` of native/attention.h."""

    _fields_ = (
        ("cache", Pages), ("q", ctypes.c_void_p), ("out", ctypes.c_void_p), ("query_start", ctypes.c_void_p),
        ("seq_lens", ctypes.c_void_p), ("sinks", ctypes.c_void_p), ("scratch", ctypes.c_void_p), ("scratch_floats", ctypes.c_int64),
        ("q_row", ctypes.c_int64), ("q_head", ctypes.c_int64), ("out_row", ctypes.c_int64), ("out_head", ctypes.c_int64),
        ("sequences", ctypes.c_int32), ("rows", ctypes.c_int32), ("heads", ctypes.c_int32), ("type", ctypes.c_int32),
        ("window", ctypes.c_int32), ("sinks_type", ctypes.c_int32), ("scale", ctypes.c_float), ("soft_cap", ctypes.c_float),
        ("out_factor", ctypes.c_float),
    )  # fmt: skip


class Place(ctypes.Structure):
    """``engine_place_arguments`` of native/place.h."""

    _fields_ = (
        ("cache", Pages), ("q", ctypes.c_void_p), ("k", ctypes.c_void_p), ("v", ctypes.c_void_p), ("q_out", ctypes.c_void_p),
        ("slots", ctypes.c_void_p), ("q_norm", ctypes.c_void_p), ("k_norm", ctypes.c_void_p), ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p), ("q_row", ctypes.c_int64), ("q_head", ctypes.c_int64), ("k_row", ctypes.c_int64),
        ("k_head", ctypes.c_int64), ("v_row", ctypes.c_int64), ("v_head", ctypes.c_int64), ("out_row", ctypes.c_int64),
        ("out_head", ctypes.c_int64), ("angle_row", ctypes.c_int64), ("rows", ctypes.c_int32), ("heads", ctypes.c_int32),
        ("type", ctypes.c_int32), ("half", ctypes.c_int32), ("interleaved", ctypes.c_int32), ("eps", ctypes.c_float),
        ("offset", ctypes.c_float), ("k_factor", ctypes.c_float), ("v_factor", ctypes.c_float),
    )  # fmt: skip


class NativeAttention(AttentionBackend):
    """Pages are [kv head][keys, values] in tiles that the kernels multiply as they are (native/pages.h).

    A sequence's result depends on its own rows alone, not on its batch mates, the number of threads or how a prompt was
    cut into chunks. Scores and sums are float32; bfloat16 queries on a bfloat16 or 8-bit cache use the processor's
    bfloat16 products where it has them (for 8 bits: and AVX512-VBMI), with softmax weights rounded to bfloat16.
    """

    selects = True

    def __init__(self, native: Native) -> None:
        self.name = f"native {native.isa}"
        self._native = native
        self._scratch = zeros((SCRATCH_FLOATS,), torch.float32)
        #: Whether threads may share one context; the results are the same.
        self.shares_contexts = True

    def supports(self, spec: AttentionSpec, dtype: torch.dtype) -> str | None:
        """Float caches of 32, 16 and 8 bits, heads of up to 1024."""
        if spec.num_heads % spec.num_kv_heads:
            return f"{spec.num_heads} query heads do not divide over {spec.num_kv_heads} KV heads"
        if spec.head_dim > LARGEST_HEAD:
            return f"heads of {spec.head_dim} are larger than {LARGEST_HEAD}"
        return None if dtype in CACHE_DTYPES else f"keys and values cannot be kept as {dtype}"

    def page_bytes(self, spec: AttentionSpec, block_size: int, dtype_bytes: float) -> int:
        """Bytes of one page of one layer; heads are padded to a multiple of 16."""
        return int(2 * spec.num_kv_heads * block_size * padded(spec.head_dim) * dtype_bytes)

    def allocate(
        self, spec: AttentionSpec, pages: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """[pages, elements of a page], zeroed. Raises :class:`ConfigError` for a block size that tiles cannot make up."""
        if block_size < 2 or (block_size % TILE and TILE % block_size):
            raise ConfigError(
                f"--block-size {block_size}: pages of the native CPU kernels hold 2, 4, 8 or a multiple of {TILE} tokens.",
                fix="--block-size 16, or ENGINE_CPU_NATIVE=0",
            )
        elements = 2 * spec.num_kv_heads * block_size * padded(spec.head_dim)
        return zeros((pages, elements), dtype)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec,
        sinks: Tensor | None = None, queries: AttentionBatch | None = None,
    ) -> Tensor:
        """See the contract. Rows that belong to no sequence, and rows of empty sequences, come out as zeros."""
        self.place(q, k, v, cache, batch, spec)
        return self.read(q, cache, queries or batch, spec, sinks)

    def place(self, q: Tensor, k: Tensor, v: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec) -> None:
        """Store the rows' K and V [T, kv_heads, head_dim] to their slots; rows of slot −1 are skipped."""
        k, v = _adjacent(k.to(q.dtype)), _adjacent(v.to(q.dtype))
        arguments = Place(
            cache=_pages(cache, batch, spec), k=k.data_ptr(), v=v.data_ptr(), slots=batch.slots.data_ptr(),
            k_row=k.stride(0), k_head=k.stride(1), v_row=v.stride(0), v_head=v.stride(1),
            rows=len(k), heads=spec.num_heads, type=element_type(q.dtype),
            k_factor=0.0 if spec.k_scale == 1.0 else 1.0 / spec.k_scale, v_factor=0.0 if spec.v_scale == 1.0 else 1.0 / spec.v_scale,
        )  # fmt: skip
        self._native.run("engine_place", arguments, k, v, cache, batch)

    def read(
        self, q: Tensor, cache: Tensor, batch: AttentionBatch, spec: AttentionSpec, sinks: Tensor | None = None
    ) -> Tensor:
        """Attention of q [T, heads, head_dim] over pages that hold the step's K and V already."""
        q = _adjacent(q)
        out = torch.empty(q.shape, dtype=q.dtype)
        arguments = Attend(
            cache=_pages(cache, batch, spec), q=q.data_ptr(), out=out.data_ptr(),
            query_start=batch.query_start.data_ptr(), seq_lens=batch.seq_lens.data_ptr(),
            sinks=None if sinks is None else sinks.data_ptr(), scratch=self._scratch.data_ptr(),
            scratch_floats=SCRATCH_FLOATS if self.shares_contexts else 0,
            q_row=q.stride(0), q_head=q.stride(1), out_row=out.stride(0), out_head=out.stride(1),
            sequences=len(batch.seq_lens), rows=len(q), heads=spec.num_heads, type=element_type(q.dtype),
            window=spec.window or 0, sinks_type=0 if sinks is None else element_type(sinks.dtype),
            scale=spec.scale * spec.k_scale, soft_cap=spec.soft_cap or 0.0,
            out_factor=0.0 if spec.v_scale == 1.0 else spec.v_scale,
        )  # fmt: skip
        self._native.run("engine_attend", arguments, q, out, cache, batch, sinks, self._scratch)
        return out


def padded(head_dim: int) -> int:
    """The head size as pages keep it."""
    return -(-head_dim // TILE) * TILE


def _adjacent(x: Tensor) -> Tensor:
    """x with a head's elements side by side: as it is for views of a fused projection."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _pages(cache: Tensor, batch: AttentionBatch, spec: AttentionSpec) -> Pages:
    return Pages(
        pages=cache.data_ptr(), block_table=batch.block_table.data_ptr(), columns=batch.block_table.stride(0),
        page_bytes=cache.stride(0) * cache.element_size(), type=element_type(cache.dtype), block_size=batch.block_size,
        kv_heads=spec.num_kv_heads, head_dim=spec.head_dim,
    )  # fmt: skip
