"""NVIDIA GPUs: the built-in Triton attention, steps recorded as CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.plugin import DeviceFacts, hookimpl

if TYPE_CHECKING:
    from engine.plugin import Device

ENGINE_API = 1
PRIORITY = 100
#: Activation dtypes, best first.
DTYPES = ("bfloat16", "float16", "float32")
#: bfloat16 and tf32 on tensor cores; older GPUs also have too little shared memory for the attention's tiles.
LEAST_CAPABILITY = (8, 0)
#: Quantized layouts that the Triton kernels multiply, in groups of a multiple of 16 or one per output.
LAYOUTS = ("grouped_int 4", "grouped_int 8", "scaled_float8", "codebook 4", "codebook 8")


@hookimpl
def engine_probe_device() -> DeviceFacts:
    """Asks the driver, not torch. ``free_memory`` is the total: what is free is known only with a context, in a worker."""
    from engine_devices._cuda_driver import DriverAbsent, visible_gpus

    try:
        gpus = visible_gpus()
    except DriverAbsent as error:
        return _unavailable(str(error))
    if not gpus:
        return _unavailable("the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide them)")
    for gpu in gpus:
        if gpu.capability < LEAST_CAPABILITY:
            least = "compute capability {}.{}, at least {}.{} is needed".format(*gpu.capability, *LEAST_CAPABILITY)
            return _unavailable(f"{gpu.name} has {least}")
    if (torch := _installed_torch()).endswith("+cpu"):
        return _unavailable(f"the installed torch {torch} is built without CUDA")
    total = min(gpu.total_memory for gpu in gpus)
    return DeviceFacts(
        name="cuda", available=True, reason=f"{len(gpus)} GPU(s) visible", priority=PRIORITY, count=len(gpus),
        total_memory=total, free_memory=total, block_size=16, dtypes=DTYPES, layouts=LAYOUTS, description=gpus[0].name,
        fetches_weights=True,
    )  # fmt: skip


@hookimpl
def engine_create_device(index: int) -> Device:
    """GPU number ``index`` of the visible ones."""
    from engine_devices._cuda_device import CUDADevice

    return CUDADevice(index)


def _unavailable(reason: str) -> DeviceFacts:
    return DeviceFacts(name="cuda", available=False, reason=reason, priority=PRIORITY, dtypes=DTYPES)


def _installed_torch() -> str:
    """The version of the installed torch, from its metadata; empty where it has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
