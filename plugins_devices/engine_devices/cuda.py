"""NVIDIA GPUs: the built-in Triton attention, steps recorded as CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.plugin import DeviceFacts, hookimpl

if TYPE_CHECKING:
    from engine.plugin import Device

ENGINE_API = 1
PRIORITY = 100
#: What the Triton kernels are compiled for and tested with; older GPUs have too little shared memory for their tiles.
LEAST_CAPABILITY = (7, 5)


@hookimpl
def engine_probe_device() -> DeviceFacts:
    """Asks the driver, not torch. ``free_memory`` is left at the total: what is free is known in the worker alone."""
    from importlib.metadata import version

    from engine_devices._cuda_driver import DriverAbsent, visible_gpus

    try:
        installed = version("torch")
        if installed.endswith("+cpu"):
            raise DriverAbsent(f"the installed torch {installed} is built without CUDA")
        gpus = visible_gpus()
    except DriverAbsent as error:
        return DeviceFacts(name="cuda", available=False, reason=str(error), priority=PRIORITY)
    able = [gpu for gpu in gpus if gpu.capability >= LEAST_CAPABILITY]
    if len(able) < len(gpus) or not gpus:
        old = ", ".join(f"{gpu.name} has capability {gpu.capability[0]}.{gpu.capability[1]}" for gpu in gpus)
        reason = f"every visible GPU must have compute capability 7.5 or higher: {old}" if gpus else "no GPU is visible"
        return DeviceFacts(name="cuda", available=False, reason=reason, priority=PRIORITY)
    total = min(gpu.total_memory for gpu in gpus)
    least = min(gpu.capability for gpu in gpus)
    return DeviceFacts(
        name="cuda", available=True, reason=f"{len(gpus)} GPU(s) visible", priority=PRIORITY, count=len(gpus),
        total_memory=total, free_memory=total, block_size=16, dtypes=dtypes(least),
        description=f"{gpus[0].name}, compute capability {least[0]}.{least[1]}",
    )  # fmt: skip


@hookimpl
def engine_create_device(index: int) -> Device:
    """GPU number ``index`` of the visible ones."""
    from engine_devices._cuda_device import CUDADevice

    return CUDADevice(index)


def dtypes(capability: tuple[int, int]) -> tuple[str, ...]:
    """Best first; tensor cores know bfloat16 from compute capability 8.0 on."""
    return ("bfloat16", "float16", "float32") if capability >= (8, 0) else ("float16", "float32")
