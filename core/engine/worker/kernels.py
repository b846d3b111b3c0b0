"""Linear kernels: the device's own, those made of others, or the reference of the layers."""

from __future__ import annotations

from collections.abc import Callable

from engine.plugin.contracts.device import Device
from engine.plugin.contracts.packed import LinearKernel, PackedWeight


def kernel_of(device: Device) -> Callable[[PackedWeight], LinearKernel]:
    """What makes the kernel of each packed weight on that device."""

    def kernel(packed: PackedWeight) -> LinearKernel:
        own = device.linear_kernel(packed)
        if own is not None:
            return own
        from engine.layers.packed import reference_kernel
        from engine.layers.packed_composite import composite_kernel

        return composite_kernel(packed, kernel) or reference_kernel(packed)

    return kernel
