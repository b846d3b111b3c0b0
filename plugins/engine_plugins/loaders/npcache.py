"""PyTorch .bin files, kept beside them as one .npy file per tensor after the first start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl

from ._files import TORCH, listing, weight_files
from ._npcache import ArrayCache
from .pt import TorchLoader

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class CachedTorchLoader(Loader):
    """Reads ``np/`` where it is complete and was made from the files that are there; else makes it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        files = weight_files(checkpoint, TORCH)
        if not files:
            raise ModelFileError(
                f"{checkpoint.path} has no .bin or .pt file; there is {listing(checkpoint.directory)}.", fix="--load-format auto"
            )
        self._source = TorchLoader(checkpoint)
        self._cache = ArrayCache(checkpoint.directory, checkpoint.download_dir, files)

    def describe(self) -> Iterator[TensorInfo]:
        """From the arrays' headers where they are there; a plan writes nothing."""
        yield from self._cache.describe() if self._cache.fresh() else self._source.describe()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        with self._cache.locked():
            if not self._cache.fresh():
                self._cache.write(self._source.tensors())
        yield from self._cache.tensors()


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Loader:
    return CachedTorchLoader(checkpoint)
