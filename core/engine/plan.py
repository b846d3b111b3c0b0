"""Memory: what weights and KV cache will take, from headers alone. ``engine plan`` prints it, ``serve`` lives by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from engine.errors import ConfigError, MemoryShortage
from engine.plugin.facts import DTYPE_BYTES, DeviceFacts, ModelInfo, TensorInfo

GIB = 2**30
#: Without a size asked for, a cache in the host's own memory takes at most this.
_SHARED_CACHE = 4 * GIB
#: Free host memory that is left alone: a share of the total, but this at least.
_MARGIN_SHARE = 0.05
_MARGIN = GIB // 4
#: Names that a checkpoint may carry although the model shares the embedding.
_TIED = ("lm_head.weight", "embed_out.weight")


#: Modules whose weights are looked up by row instead of multiplied: they never stay in host memory.
_LOOKED_UP = ("embed_tokens", "wte", "wpe", "embed_in", "tok_embeddings", "embed_positions", "token_embd")
#: Tensors that are on the device at the same time while weights are copied from the host's memory: those of the layer at work and of
#: the next, which may be fused of two large ones each.
_PLACES = 4


class Weights(msgspec.Struct, frozen=True):
    """Bytes of a checkpoint's tensors as its files hold them, and in the dtype that the engine runs them in.

    ``movable``: of ``resident`` those of layers that multiply, which may stay in host memory. ``largest``: of them the largest tensor's.
    """

    tensors: int
    stored: int
    resident: int
    movable: int = 0
    largest: int = 0

    def offloaded(self, budget: int, workers: int) -> int:
        """The most bytes that stay in host memory where each worker may leave ``budget`` there."""
        return min(budget * workers, self.movable)

    def on_device(self, budget: int, workers: int) -> int:
        """What is left for the devices together: the rest, and the places that the others are copied to."""
        kept = self.offloaded(budget, workers)
        return min(self.resident, self.resident - kept + _PLACES * self.largest) if kept else self.resident


class CacheSize(msgspec.Struct, frozen=True, kw_only=True):
    """The KV cache. Bytes are one worker's; ``rss`` is what all processes of the server will occupy, in bytes."""

    block_size: int
    bytes_per_token: int
    page_bytes: int
    pages: int
    host_pages: int
    budget: int
    rss: int

    def concurrency(self, max_model_len: int) -> float:
        """How many sequences of full length fit at once."""
        return self.pages * self.block_size / max_model_len


class CacheWish(msgspec.Struct, frozen=True, kw_only=True):
    """What the flags say of the cache. ``host_bytes``: swap space per worker, 0 where nothing swaps; ``host_given``: the user said so.
    ``beside``: host bytes of what else is loaded at the start."""

    block_size: int
    fraction: float
    max_model_len: int
    max_num_seqs: int
    tensor_parallel: int
    pages_override: int | None
    host_bytes: int
    host_given: bool
    beside: int = 0


def measure(
    tensors: Iterable[TensorInfo], info: ModelInfo, dtype: str, held: Callable[[TensorInfo], int | None] | None = None
) -> Weights:  # fmt: skip
    """Floating tensors are counted in ``dtype``, others as stored; a tied output layer is counted once.

    ``held``: what a quantization method says of a tensor (:meth:`~engine.plugin.Quantizer.held`), which counts where it says something.
    """
    count = stored = 0
    resident = movable = largest = 0.0
    names: set[str] = set()
    for tensor in tensors:
        count += 1
        stored += tensor.nbytes
        names.add(tensor.name)
        if info.tied_embeddings and tensor.name in _TIED:
            continue
        packed = None if held is None else held(tensor)
        size = _plain_size(tensor, dtype) if packed is None else packed
        resident += size
        if len(tensor.shape) > 1 and not any(f"{name}." in tensor.name for name in _LOOKED_UP):
            movable += size
            largest = max(largest, size)
    return Weights(count, stored, int(resident), int(movable), int(largest))


def _plain_size(tensor: TensorInfo, dtype: str) -> float:
    plain = tensor.dtype in ("float64", "float32", "float16", "bfloat16")
    return tensor.nbytes / DTYPE_BYTES.get(tensor.dtype, 1) * DTYPE_BYTES[dtype] if plain else tensor.nbytes


def size_cache(info: ModelInfo, storage: str, weights: int, device: DeviceFacts, wish: CacheWish) -> CacheSize:
    """How many pages to take. ``weights``: bytes of all weights in the run dtype; they are shared evenly among the workers.

    A cache never takes more than is free. Raises :class:`MemoryShortage` with the numbers where not one sequence of full length fits.
    """
    per_token = info.kv_bytes_per_token(DTYPE_BYTES[storage], wish.tensor_parallel)
    page = per_token * wish.block_size
    workers = wish.tensor_parallel if device.shared_memory else 1  # how many draw on the same memory
    fixed = weights * workers // wish.tensor_parallel + device.runtime_bytes * workers
    fixed += wish.beside if device.shared_memory else 0
    margin = max(_MARGIN, int(device.total_memory * _MARGIN_SHARE)) if device.shared_memory else 0
    allowed = int(wish.fraction * device.total_memory)
    available = (min(allowed, device.free_memory - margin) - fixed) // workers
    if available <= 0:
        raise _no_room_for_weights(weights, fixed, device, wish.fraction, margin)
    sequence = _pages(wish.max_model_len, wish.block_size)
    host_pages = _host_pages(page, sequence, available, device, wish)
    budget = available - (host_pages * page if device.shared_memory else 0)
    pages = wish.pages_override or _wanted_pages(page, budget, sequence, device, wish)
    if pages * page > budget:
        raise _too_many(pages, page, budget, wish)
    if pages < sequence:
        raise _too_few(pages, page, sequence, budget, device, wish)
    rss = fixed + workers * (pages + host_pages) * page if device.shared_memory else device.runtime_bytes + wish.beside
    return CacheSize(
        block_size=wish.block_size,
        bytes_per_token=per_token,
        page_bytes=page,
        pages=pages,
        host_pages=host_pages,
        budget=budget,
        rss=rss,
    )


def one_page(info: ModelInfo, storage: str, wish: CacheWish) -> CacheSize:
    """The cache of a command that reads a model's files and loads none of it: no room is asked for."""
    per_token = info.kv_bytes_per_token(DTYPE_BYTES[storage], wish.tensor_parallel)
    page = per_token * wish.block_size
    return CacheSize(
        block_size=wish.block_size, bytes_per_token=per_token, page_bytes=page, pages=1, host_pages=0, budget=page, rss=0
    )  # fmt: skip


def _pages(tokens: int, block_size: int) -> int:
    return -(-tokens // block_size)


def _wanted_pages(page: int, budget: int, sequence: int, device: DeviceFacts, wish: CacheWish) -> int:
    """On a device of its own all that fits; in the host's memory no more than all sequences could use, and 4 GiB (or one sequence)."""
    fits = budget // page
    if not device.shared_memory:
        return fits
    return min(fits, sequence * wish.max_num_seqs, max(_SHARED_CACHE // page // wish.tensor_parallel, sequence))


def _host_pages(page: int, sequence: int, available: int, device: DeviceFacts, wish: CacheWish) -> int:
    """Swap pages: what was asked for, else what the sequences could use and, of memory shared with the cache, a quarter."""
    pages = wish.host_bytes // page
    if wish.host_given:
        if device.shared_memory and pages * page > available:
            raise MemoryShortage(
                f"--swap-space {wish.host_bytes / GIB:g} needs {gib(pages * page)}, but {gib(available)} are left beside the weights.",
                fix=f"--swap-space {available // 4 / GIB:.2f}",
            )
        return pages
    pages = min(pages, sequence * wish.max_num_seqs)
    return min(pages, available // 4 // page) if device.shared_memory else pages


def _no_room_for_weights(weights: int, fixed: int, device: DeviceFacts, fraction: float, margin: int) -> MemoryShortage:
    free = f"{gib(device.free_memory)} free of {gib(device.total_memory)}"
    cause = (
        f"The weights need {gib(weights)} and the server {gib(fixed - weights)} beside them, but {device.name} has "
        f"{free}, of which {fraction * 100:g} % may be used and {gib(margin)} stay free."
    )
    share = math.ceil((fixed + _MARGIN) / device.total_memory * 100) / 100
    enough = fraction < share <= (device.free_memory - margin) / device.total_memory
    return MemoryShortage(cause, fix=f"--gpu-memory-utilization {share:g}" if enough else "a smaller model, or more memory")


def _too_many(pages: int, page: int, budget: int, wish: CacheWish) -> MemoryShortage:
    fits = budget // page
    cause = f"--num-gpu-blocks-override {pages} needs {gib(pages * page)} for the KV cache, but {gib(budget)} are left ({fits} blocks)."
    return MemoryShortage(cause, fix=f"--num-gpu-blocks-override {fits}")


def _too_few(
    pages: int, page: int, sequence: int, budget: int, device: DeviceFacts, wish: CacheWish
) -> ConfigError | MemoryShortage:
    fits = pages * wish.block_size
    if wish.pages_override is not None:
        cause = (
            f"--num-gpu-blocks-override {pages} holds {fits} tokens, fewer than one sequence of the model length {wish.max_model_len} "
            f"({sequence} blocks of {wish.block_size})."
        )
        return ConfigError(cause, fix=f"--num-gpu-blocks-override {sequence}")
    cause = (
        f"One sequence of {wish.max_model_len} tokens needs {gib(sequence * page)} of KV cache, but {gib(budget)} are left "
        f"on {device.name} ({gib(device.free_memory)} free of {gib(device.total_memory)})."
    )
    return MemoryShortage(cause, fix=f"--max-model-len {fits}" if fits else "a smaller model, or more memory")


def gib(count: float) -> str:
    """Bytes as people read them."""
    for size, unit in ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{int(count)} B"
