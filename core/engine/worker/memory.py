"""How much memory a worker's model takes, and how many KV pages fit into the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.config import EngineConfig
from engine.errors import MemoryShortage
from engine.plugin.contracts.attention import AttentionBackend
from engine.plugin.contracts.device import Device
from engine.plugin.contracts.executor import CacheBudget
from engine.plugin.contracts.model import Model
from engine.plugin.facts import DTYPE_BYTES, AttentionSpec
from engine.plugin.request import SamplingParams
from engine.plugin.step import NewSequence
from engine.worker.inputs import StepInputs
from engine.worker.runner import StepRunner
from engine.worker.sampler import Rows, Sampler
from engine.worker.sequences import Sequence

if TYPE_CHECKING:
    from torch import Tensor


def page_bytes(config: EngineConfig, attention: AttentionBackend, specs: list[AttentionSpec]) -> int:
    """Bytes of one page over a rank's layers."""
    element = DTYPE_BYTES[config.cache.dtype]
    return sum(attention.page_bytes(spec, config.cache.block_size, element) for spec in specs)


def measure_budget(config: EngineConfig, device: Device, page: int, weight_bytes: int) -> CacheBudget:
    """The pages that fit now, at most as many as planned.

    Free memory, less the share of all memory that --gpu-memory-utilization leaves to others; a given number of pages
    (--num-gpu-blocks-override) has all that is free. Where device memory is the host's, the plan has kept to that share
    already, ranks divide what is free evenly, and host pages come out of it. Raises
    :class:`~engine.errors.MemoryShortage` where no page fits.
    """
    cache = config.cache
    memory = device.memory()
    if config.device.shared_memory:
        usable = memory.free // config.parallel.tensor_parallel - cache.host_pages * page
    elif cache.pages_override is not None:
        usable = memory.free
    else:
        usable = memory.free - int((1.0 - cache.memory_fraction) * memory.total)
    fits = max(0, usable // page)
    if not fits:
        raise MemoryShortage(
            f"After loading the model {memory.free >> 20} MiB of {memory.total >> 20} MiB are free, which leaves no page "
            f"of {page >> 10} KiB for the KV cache at --gpu-memory-utilization {cache.memory_fraction:g}.",
            fix="a higher --gpu-memory-utilization, or a smaller model",
        )
    return CacheBudget(
        pages=min(cache.pages, fits), host_pages=cache.host_pages, page_bytes=page, weight_bytes=weight_bytes,
        memory_total=memory.total, memory_free=memory.free,
    )  # fmt: skip


def used_bytes(device: Device) -> int:
    """Memory in use: on the CPU what this process holds, elsewhere what the device has given out."""
    if device.torch_device().type == "cpu":
        import resource
        from pathlib import Path

        statm = Path("/proc/self/statm")
        if statm.exists():
            return int(statm.read_text().split()[1]) * resource.getpagesize()
    memory = device.memory()
    return memory.total - memory.free


def rehearse(model: Model, caches: list[Tensor], config: EngineConfig, device: torch.device) -> None:
    """Run the largest step once, so that the device's allocator holds what steps need before the rest becomes pages.

    ``caches``: one page per layer. Nothing is stored; the result is thrown away.
    """
    hidden = StepRunner(model, caches, config.cache.block_size, device).run_plainly(_largest_step(config)).every()
    seqs = min(config.scheduler.max_num_seqs, hidden.shape[0])
    logits = model.logits(hidden[:seqs])
    params = SamplingParams(top_p=0.9, top_k=50, seed=0)
    sequence = Sequence(NewSequence(seq=0, token_ids=[0], num_prompt=1, params=params), 0)
    Sampler.plain().sample(logits, Rows([sequence] * seqs, np.ones(seqs, np.int64)))


def _largest_step(config: EngineConfig) -> StepInputs:
    """``max_num_batched_tokens`` rows of prompts as long as the model allows, which store nothing."""
    total, longest = config.scheduler.max_num_batched_tokens, config.model.max_model_len
    counts = np.full(-(-total // longest), longest, np.int64)
    counts[-1] = total - counts[:-1].sum()
    starts = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    width = -(-int(counts.max()) // config.cache.block_size)
    none = np.zeros(0, np.int64)
    return StepInputs(
        sequences=[],
        token_ids=np.zeros(total, np.int64),
        positions=np.concatenate([np.arange(count) for count in counts]),
        slots=np.full(total, -1, np.int64),
        query_start=starts,
        query_lens=counts,
        seq_lens=counts.astype(np.int32),
        block_table=np.zeros((len(counts), width), np.int32),
        sample_rows=none,
        sample_owner=none,
        sample_length=none,
        every=True,
    )
