"""The CPU device as a worker uses it."""

from __future__ import annotations

import os

import torch

from engine.plugin import AttentionBackend, Device, LinearKernel, Memory, Operations, PackedWeight, Recorder
from engine_devices._attention import NativeAttention
from engine_devices._composite import linear_kernel
from engine_devices._host_limits import host_memory, physical_cores, usable_cores
from engine_devices._native import Absent, load
from engine_devices._operations import NativeOperations
from engine_devices._recorder import TapeRecorder
from engine_devices._roof import measure
from engine_devices.cpu import dtypes


def cores_for(index: int, threads: int) -> list[int] | None:
    """The cores of worker ``index``, one per thread, from the last of those that this process may use.

    Threads that are not pinned get woken on the core of whoever wakes them, and wait for each other there: measured, 40 us
    at every barrier. The first core is left to the front end as long as there is another. None where there are too few, and
    where ENGINE_CPU_PIN=0 forbids it (several engines on the same cores).
    """
    if os.environ.get("ENGINE_CPU_PIN", "1") == "0" or not hasattr(os, "sched_getaffinity"):
        return None
    cores = physical_cores()[::-1]
    mine = cores[index * threads : (index + 1) * threads]
    return mine if len(mine) == threads else None


class CPUDevice(Device):
    """The host's cores: native kernels where there is a library for them, else torch.

    Sets torch's and the library's thread count to the cores that this process may use, unless OMP_NUM_THREADS decides it:
    whoever starts several workers on one machine shares the cores out with that variable.
    """

    name = "cpu"

    def __init__(self, index: int = 0) -> None:
        self.index = index
        if not os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(usable_cores())
        self.native = load()
        if not isinstance(self.native, Absent):
            threads = torch.get_num_threads()
            self.native.start(threads, cores_for(index, threads))

    def torch_device(self) -> torch.device:
        """Where tensors live."""
        return torch.device("cpu")

    def memory(self) -> Memory:
        """Total and free bytes now, container limits counted."""
        memory = host_memory()
        return Memory(memory.total, memory.free)

    def attention(self) -> AttentionBackend | None:
        """The native kernels' pages; None, which is the core's torch reference, where there is no library."""
        return None if isinstance(self.native, Absent) else NativeAttention(self.native)

    def linear_kernel(self, packed: PackedWeight) -> LinearKernel | None:
        """The native kernel of a layout that has one."""
        return None if isinstance(self.native, Absent) else linear_kernel(self.native, packed)

    def operations(self) -> Operations | None:
        """The native ones; None, which is the core's in torch, where there is no library."""
        return None if isinstance(self.native, Absent) else NativeOperations(self.native)

    def recorder(self) -> Recorder | None:
        """Tapes of native operations."""
        return None if isinstance(self.native, Absent) else TapeRecorder(self.native)

    def limits(self, dtype: str) -> dict[str, float]:
        """Measured by the native library, if there is one."""
        return {} if isinstance(self.native, Absent) else measure(self.native, dtype)

    def profile(self, on: bool) -> dict[str, float]:
        """Of the native kernels, if there are any."""
        return {} if isinstance(self.native, Absent) else self.native.switch_profile(on)

    def dtypes(self) -> tuple[str, ...]:
        """Best first: see :func:`engine_devices.cpu.dtypes`."""
        return dtypes()

    def describe(self) -> dict[str, str]:
        """What ``engine plan`` shows."""
        if isinstance(self.native, Absent):
            linear, native = "torch", f"none: {self.native.reason}"
        else:
            linear, native = "native", f"{self.native.isa}, {self.native.path}"
        return {
            "threads": str(torch.get_num_threads()), "native kernels": native, "linear": linear,
            "attention": linear if linear == "native" else "torch reference",
        }  # fmt: skip
