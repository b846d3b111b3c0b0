"""The host's processor through torch alone, as a device named example."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine.plugin import AttentionBackend, Device, DeviceFacts, Memory, hookimpl

if TYPE_CHECKING:
    import torch

ENGINE_API = 1


def host_memory() -> Memory:
    """Bytes that the machine has, and has free."""
    page = os.sysconf("SC_PAGE_SIZE")
    return Memory(os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page)


class ExampleDevice(Device):
    """Takes the core's own attention, linear kernels and operations."""

    name = "example"

    def torch_device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    def memory(self) -> Memory:
        return host_memory()

    def attention(self) -> AttentionBackend | None:
        return None


@hookimpl
def engine_probe_device() -> DeviceFacts:
    memory = host_memory()
    return DeviceFacts(
        "example", True, "every machine has a processor", count=1, total_memory=memory.total, free_memory=memory.free, shared_memory=True
    )


@hookimpl
def engine_create_device() -> Device:
    return ExampleDevice()
