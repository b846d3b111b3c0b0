"""The CPU device as a worker uses it."""

from __future__ import annotations

import os

import torch

from engine.plugin import AttentionBackend, Device, Memory
from engine_devices._host_limits import host_memory, usable_cores
from engine_devices.cpu import dtypes


class CPUDevice(Device):
    """Torch on the host's cores; attention is the core's torch reference.

    Sets torch's thread count to the cores that this process may use, unless OMP_NUM_THREADS decides it: whoever starts
    several workers on one machine shares the cores out with that variable.
    """

    name = "cpu"

    def __init__(self, index: int = 0) -> None:
        self.index = index
        if not os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(usable_cores())

    def torch_device(self) -> torch.device:
        """Where tensors live."""
        return torch.device("cpu")

    def memory(self) -> Memory:
        """Total and free bytes now, container limits counted."""
        memory = host_memory()
        return Memory(memory.total, memory.free)

    def attention(self) -> AttentionBackend | None:
        """None: the core's built-in torch attention."""
        return None

    def dtypes(self) -> tuple[str, ...]:
        """Best first: see :func:`engine_devices.cpu.dtypes`."""
        return dtypes()

    def describe(self) -> dict[str, str]:
        """What ``engine plan`` shows."""
        return {"threads": str(torch.get_num_threads()), "linear": "torch", "attention": "torch reference"}
