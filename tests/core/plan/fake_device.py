"""A device plugin of the tests, of a size that the environment says."""

from __future__ import annotations

import os

from engine.plugin import DeviceFacts, hookimpl
from engine.plugin.contracts.device import Device

ENGINE_API = 1
GIB = 2**30


@hookimpl
def engine_probe_device() -> DeviceFacts:
    """Sizes from the environment, in GiB; ``card`` is a device with memory of its own."""
    total, free = (float(os.environ.get(name, default)) for name, default in (("FAKE_TOTAL", "8"), ("FAKE_FREE", "6")))
    return DeviceFacts(
        name="fake", available=os.environ.get("FAKE_GONE") != "1", reason="no fake is plugged in", priority=100, count=1,
        total_memory=int(total * GIB), free_memory=int(free * GIB), shared_memory=os.environ.get("FAKE_CARD") != "1",
        runtime_bytes=GIB // 2, block_size=16, dtypes=("float16", "float32"), description="a fake of the tests",
    )  # fmt: skip


@hookimpl
def engine_create_device() -> Device:
    raise NotImplementedError
