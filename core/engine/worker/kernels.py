"""Linear kernels: the device's own, those made of others, or the reference of the layers; and which layout got which."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from engine.plugin.contracts.device import Device
from engine.plugin.contracts.packed import LinearKernel, PackedWeight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Kernels:
    """Makes the kernel of each packed weight on a device, and remembers how many layers of each layout got which."""

    def __init__(self, device: Device) -> None:
        self._device = device
        #: (layout, whether the device has a kernel for it) → layers.
        self.made: Counter[tuple[str, bool]] = Counter()

    def __call__(self, packed: PackedWeight) -> LinearKernel:
        """The device's kernel; for a weight made of others one made of theirs; else the reference."""
        from engine.layers.packed import reference_kernel
        from engine.layers.packed_composite import composite_kernel

        # Before the device looks at it: an exclusive weight may be gone afterwards.
        names = [spelled(leaf) for leaf in leaves(packed)]
        own = self._device.linear_kernel(packed)
        kernel = own if own is not None else composite_kernel(packed, self)
        if kernel is None or own is not None:
            self.made.update((name, own is not None) for name in names)
        return kernel or reference_kernel(packed)

    def describe(self) -> dict[str, str]:
        """By layout: whether the device multiplies it as it is, or the reference dequantizes some of it at a time."""
        found: dict[str, str] = {}
        for (layout, own), layers in sorted(self.made.items()):
            how = "a kernel of the device" if own else "dequantized in slices at each product, the device has no kernel for it"
            text = f"{layers} layers: {how}"
            found[f"layout {layout}"] = f"{found[f'layout {layout}']}; {text}" if f"layout {layout}" in found else text
        return found

    def without(self) -> dict[str, int]:
        """Quantized layouts that the device has no kernel for, with their layers."""
        return {layout: layers for (layout, own), layers in sorted(self.made.items()) if not own and layout != "dense"}


def leaves(packed: PackedWeight) -> Iterator[PackedWeight]:
    """The weight, or what it is made of."""
    parts = getattr(packed, "parts", None)
    inner = getattr(packed, "inner", None)
    if parts is None and inner is None:
        yield packed
    for part in parts or [inner] if parts or inner else []:
        yield from leaves(part)


def spelled(packed: PackedWeight) -> str:
    """The layout, and what of it decides whether a kernel takes it."""
    bits, kind = getattr(packed, "bits", None), getattr(packed, "kind", None)
    detail = f"{bits} bits" if bits is not None else getattr(kind, "name", "")
    group = getattr(packed, "group", None)
    if group is not None:
        detail += ", one scale per output" if group >= packed.inputs else f", groups of {group}"
    return f"{packed.layout} ({detail})" if detail else packed.layout


def kernel_of(device: Device) -> Callable[[PackedWeight], LinearKernel]:
    """What makes the kernel of each packed weight on that device."""
    return Kernels(device)
