"""Weights that stay in host memory and come to the device one layer ahead of their product (``--cpu-offload-gb``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import ConfigError
from engine.layers.packed import DensePacked
from engine.layers.packed_moving import moved
from engine.layers.packed_parts import pieces_of
from engine.plugin.contracts.device import Device, WeightTransfer
from engine.plugin.contracts.packed import LinearKernel, LinearWork, PackedWeight

if TYPE_CHECKING:
    from torch import Tensor

#: Where a tensor may begin in a layer's bytes: what kernels and copies want of addresses.
_ALIGNED = 256


class Shelf:
    """The layers in host memory, and the two places on the device that they take turns in.

    While one layer's product is computed, the next one's bytes are copied to the other place. Which one is next is what came next the
    last time; where that is wrong (other experts), the right one is copied when it is asked for.
    """

    def __init__(self, transfer: WeightTransfer, device: torch.device) -> None:
        self._transfer, self._device = transfer, device
        self._layers: list[Tensor] = []
        self._next: dict[int, int] = {}
        self._places: list[Tensor] = []
        #: Per place the layer in it and its transfer, which may be under way.
        self._held: dict[int, tuple[int, Any]] = {}
        self._last: tuple[int, int] | None = None
        #: Bytes of the layers; copies that were begun, and those of them that were not begun ahead.
        self.bytes = self.fetched = self.late = 0

    def put(self, layer: Tensor) -> int:
        """Take a layer's bytes (uint8 [n], host memory of the transfer); returns its number."""
        if self._places:
            raise RuntimeError("a layer is put after the first one was brought")
        self._layers.append(layer)
        self.bytes += layer.nbytes
        return len(self._layers) - 1

    def size(self, number: int) -> int:
        """Bytes of a layer."""
        return self._layers[number].nbytes

    def bring(self, number: int) -> Tensor:
        """The layer's bytes on the device, for work that is submitted before the next call; begins to fetch the next layer."""
        if not self._places:
            most = max(layer.nbytes for layer in self._layers)
            self._places = [torch.empty(most, dtype=torch.uint8, device=self._device) for _ in range(2)]
        last, at = self._last, self._where(number)
        if at is None:
            self.late += 1
            at = self._begin(number, 0 if last is None else 1 - last[1])
        self._transfer.wait(self._held[at][1])
        if last is not None:
            self._next[last[0]] = number
        self._last = (number, at)
        following = self._next.get(number)
        if following is not None and self._where(following) is None:
            self._begin(following, 1 - at)
        return self._places[at].narrow(0, 0, self.size(number))

    def _where(self, number: int) -> int | None:
        return next((at for at, held in self._held.items() if held[0] == number), None)

    def _begin(self, number: int, at: int) -> int:
        self.fetched += 1
        layer = self._layers[number]
        self._held[at] = (number, self._transfer.begin(self._places[at].narrow(0, 0, layer.nbytes), layer))
        return at


class OffloadedKernel(LinearKernel):
    """The device's kernel of a weight that is on a shelf. It is made anew each time: some kernels derive tensors from the weight's."""

    def __init__(self, shelf: Shelf, number: int, elements: int, make: Callable[[Tensor], LinearKernel]) -> None:
        self._shelf, self._number, self._elements, self._make = shelf, number, elements, make
        self._bytes = shelf.size(number)

    def work(self, dtype: str) -> tuple[LinearWork, ...]:
        """All elements are multiplied; what is read is read from the device's memory."""
        return (LinearWork(self._elements, self._bytes, dtype),)

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[rows, inputs] → [rows, outputs], when the weight has arrived."""
        return self._make(self._shelf.bring(self._number)).apply(x, bias)


@dataclass(frozen=True, slots=True)
class _Place:
    """One tensor within a layer's bytes."""

    start: int
    shape: torch.Size
    dtype: torch.dtype

    def of(self, whole: Tensor) -> Tensor:
        size = self.shape.numel() * self.dtype.itemsize
        return whole.narrow(0, self.start, size).view(self.dtype).view(self.shape)


class Offload:
    """Keeps linear layers' weights in host memory, in the order in which they finish loading, up to ``budget`` bytes of this rank.

    A layer that the rest of the budget cannot hold goes to the device; a later, smaller one may still be kept.
    """

    def __init__(self, budget: int, device: Device, kernel: Callable[[PackedWeight], LinearKernel]) -> None:
        transfer = device.weight_transfer()
        if transfer is None:
            cause = f"--cpu-offload-gb: the device {device.name} cannot fetch weights from host memory."
            raise ConfigError(cause, fix="--cpu-offload-gb 0")
        self.budget, self._transfer, self._kernel = budget, transfer, kernel
        self.shelf = Shelf(transfer, device.torch_device())
        self.layers = 0

    def __call__(self, packed: PackedWeight) -> LinearKernel | None:
        """The kernel of a weight that stays in host memory; None: it goes to the device, because the budget is used up."""
        kernel = self._dense(packed) if isinstance(packed, DensePacked) else self._quantized(packed)
        self.layers += kernel is not None
        return kernel

    def describe(self) -> dict[str, str]:
        """What a worker says of itself."""
        shelf = self.shelf
        held = f"{self.layers} layers, {shelf.bytes} bytes"
        return {"weights in host memory": f"{held}; copied {shelf.fetched} times, {shelf.late} of them not ahead"}

    def _fits(self, size: int) -> bool:
        return self.shelf.bytes + size <= self.budget

    def _dense(self, packed: DensePacked) -> LinearKernel | None:
        """Pieces are joined where they stay: they never take the device's memory."""
        if not self._fits(packed.nbytes()):
            return None
        pieces = pieces_of(packed)
        place = _Place(0, torch.Size((packed.outputs, packed.inputs)), pieces[0].dtype)
        host = self._transfer.host_memory(packed.nbytes())
        torch.cat(list(pieces), out=place.of(host))
        packed.release()
        elements = packed.outputs * packed.inputs
        return OffloadedKernel(self.shelf, self.shelf.put(host), elements, lambda whole: self._kernel(DensePacked(place.of(whole))))

    def _quantized(self, packed: PackedWeight) -> LinearKernel | None:
        places: list[_Place] = []
        size = 0

        def note(tensor: Tensor) -> Tensor:
            nonlocal size
            places.append(_Place(size, tensor.shape, tensor.dtype))
            size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
            return torch.empty_like(tensor, device="meta")

        form = moved(packed, note)
        if not self._fits(size):
            return None
        host = self._transfer.host_memory(size)
        filling = iter(places)
        moved(packed, lambda tensor: next(filling).of(host).copy_(tensor))

        def make(whole: Tensor) -> LinearKernel:
            at = iter(places)
            return self._kernel(moved(form, lambda _: next(at).of(whole)))

        return OffloadedKernel(self.shelf, self.shelf.put(host), packed.outputs * packed.inputs, make)
