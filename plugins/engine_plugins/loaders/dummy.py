"""Random weights of the right shapes, to measure speed without a download."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl

from ._files import SAFETENSORS, weight_files
from ._header import read_header

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1
_SEED = 1234
_BOUND = 1e-3


class DummyLoader(Loader):
    """Yields nothing; fills every parameter with numbers that depend on its size and dtype alone.

    ``describe`` reads the headers of safetensors files where there are any, so that a plan can count the bytes.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def describe(self) -> list[TensorInfo]:
        return [info for file in weight_files(self._checkpoint, SAFETENSORS) for info in read_header(file)]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        return iter(())

    def nbytes(self) -> int:
        """Nothing is read."""
        return 0

    def complete(self) -> bool:
        return False

    def invent(self, name: str, tensor: Tensor) -> bool:
        """Uniform in ±1e-3, from a generator seeded anew for each parameter; integers become 0."""
        import torch

        if not tensor.is_floating_point():
            tensor.zero_()
            return True
        generator = torch.Generator().manual_seed(_SEED)
        dtype = tensor.dtype if tensor.dtype.itemsize >= 2 else torch.float16
        made = torch.empty(tensor.shape, dtype=dtype).uniform_(-_BOUND, _BOUND, generator=generator)
        tensor.copy_(made.to(tensor.dtype))
        return True


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Loader:
    return DummyLoader(checkpoint)
