"""Memory-mapped .safetensors files, every header checked first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl

from ._files import SAFETENSORS, listing, weight_files
from ._safetensors import SafetensorsFiles

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class SafetensorsLoader(Loader):
    """Reads the shards one after the other, each in the order of its bytes."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        found = weight_files(checkpoint, SAFETENSORS)
        if not found:
            raise ModelFileError(
                f"{checkpoint.path} has no .safetensors file; there is {listing(checkpoint.directory)}.",
                fix="--load-format auto",
            )
        self._files = SafetensorsFiles(found)

    def describe(self) -> list[TensorInfo]:
        """Headers of all shards; a name that two shards offer is refused."""
        return self._files.describe()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Views of the mapped files; pages are read when the tensor is used."""
        return self._files.tensors()


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Loader:
    return SafetensorsLoader(checkpoint)
