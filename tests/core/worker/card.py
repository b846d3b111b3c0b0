"""A device with memory of its own, in the host's: what is copied there by a transfer is there when somebody has waited for it."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.plugin import AttentionBackend, Device, DeviceFacts, LinearKernel, Memory, PackedWeight, WeightTransfer, hookimpl

ENGINE_API = 1
SIZE = 1 << 33


class LateTransfer(WeightTransfer):
    """As late as the contract permits: until ``wait`` the target holds garbage. Counts bytes."""

    def __init__(self) -> None:
        self.held = self.copied = 0
        self.targets: set[int] = set()

    def host_memory(self, size: int) -> Tensor:
        self.held += size
        return torch.empty(size, dtype=torch.uint8)

    def begin(self, target: Tensor, source: Tensor) -> list[tuple[Tensor, Tensor]]:
        target.fill_(0xFF)
        self.copied += source.nbytes
        self.targets.add(target.data_ptr())
        return [(target, source)]

    def wait(self, transfer: list[tuple[Tensor, Tensor]]) -> None:
        while transfer:
            target, source = transfer.pop()
            target.copy_(source)


class Card(Device):
    """The core's reference kernels; ``resident`` bytes were given to kernels that keep them."""

    name = "card"

    def __init__(self) -> None:
        self.transfer = LateTransfer()

    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def memory(self) -> Memory:
        return Memory(SIZE, SIZE)

    def attention(self) -> AttentionBackend | None:
        return None

    def linear_kernel(self, packed: PackedWeight) -> LinearKernel | None:
        return None

    def weight_transfer(self) -> WeightTransfer:
        return self.transfer


@hookimpl
def engine_probe_device() -> DeviceFacts:
    return DeviceFacts(
        name="card", available=True, reason="a fake of the tests", count=1, total_memory=SIZE, free_memory=SIZE,
        dtypes=("float32", "float16", "bfloat16"), description="a fake of the tests", fetches_weights=True,
    )  # fmt: skip


@hookimpl
def engine_create_device() -> Device:
    return Card()
