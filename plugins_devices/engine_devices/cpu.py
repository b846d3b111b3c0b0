"""The host's processor: torch kernels and the built-in torch attention."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.plugin import DeviceFacts, hookimpl

if TYPE_CHECKING:
    from engine.plugin import Device

ENGINE_API = 1

#: Resident bytes of a small model's server beside weights, cache and activations, measured on Linux x86-64 with torch 2.13, the process
#: that compiles constraints included; a vocabulary of 152 thousand tokens adds 150 MiB.
RUNTIME_BYTES = 184 << 20
#: Prompts cost the same per token in chunks of this size as in large ones (within 3 % from 128 tokens on), and whoever is decoding waits
#: a tenth of the time.
MIXED_TOKENS = 256
#: Quantized layouts that the native kernels multiply, in groups of a multiple of 16 or one per output; also where inputs are
#: reordered, activations rounded or multiplied first, and where parts of different layouts are joined.
LAYOUTS = (
    *(f"grouped_int {bits}" for bits in range(1, 9)), "codebook 4", "codebook 8", "scaled_float8",
    *(f"blocks {kind}" for kind in ("q4_k", "q5_k", "q6_k")),
)  # fmt: skip


@hookimpl
def engine_probe_device() -> DeviceFacts:
    """Always available where the kernel says how much memory there is."""
    from engine_devices._host_limits import compute_threads, host_memory, usable_cores, usable_processors

    try:
        memory, cores = host_memory(), usable_cores()
    except (OSError, KeyError, AttributeError) as error:
        reason = f"this system does not tell its memory and processors the way Linux does ({error!r})"
        return DeviceFacts(name="cpu", available=False, reason=reason)
    return DeviceFacts(
        name="cpu", available=True, reason="every machine has one", priority=0, count=1,
        total_memory=memory.total, free_memory=memory.free, shared_memory=True, runtime_bytes=RUNTIME_BYTES,
        fills_host=compute_threads() >= usable_processors(), mixed_tokens=MIXED_TOKENS,
        layouts=LAYOUTS if os.environ.get("ENGINE_CPU_NATIVE", "1") != "0" else (),
        block_size=16, dtypes=dtypes(), description=f"{processor_name()}, {cores} cores",
    )  # fmt: skip


@hookimpl
def engine_create_device(index: int) -> Device:
    """The one CPU device, whatever ``index`` is: workers on this machine share it."""
    from engine_devices._cpu_device import CPUDevice

    return CPUDevice(index)


def dtypes(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """bfloat16 first where the processor multiplies it in hardware, else float32 first; float16 works, slowly."""
    flags = _cpuinfo(cpuinfo, "flags") or _cpuinfo(cpuinfo, "Features")
    if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()):
        return ("bfloat16", "float32", "float16")
    return ("float32", "bfloat16", "float16")


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor as the kernel calls it."""
    return _cpuinfo(cpuinfo, "model name") or "CPU"


def _cpuinfo(path: Path, key: str) -> str:
    """The first line of that key; empty where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
