"""Mistral's own checkpoints: consolidated*.safetensors under the original names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Loader, ModelInfo, TensorInfo, hookimpl

from ._files import indexed_files, listing
from ._mistral_names import MistralNames
from ._safetensors import SafetensorsFiles

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1
INDEX = "consolidated.safetensors.index.json"


class MistralLoader(Loader):
    """Yields the tensors under the converted names, wq and wk in the converted order, so that any implementation can run them."""

    def __init__(self, checkpoint: Checkpoint, info: ModelInfo | None) -> None:
        found = indexed_files(checkpoint.directory, "consolidated*.safetensors", INDEX)
        if not found:
            raise ModelFileError(
                f"{checkpoint.path} has no consolidated*.safetensors; there is {listing(checkpoint.directory)}.",
                fix="--load-format auto",
            )
        if info is None or not info.layers:
            raise ModelFileError(
                f"{checkpoint.path}: --load-format mistral must know the model's attention heads, and no layer has any.",
                fix="--load-format safetensors",
            )
        self._files = SafetensorsFiles(found)
        self._names = MistralNames(info)

    def describe(self) -> Iterator[TensorInfo]:
        for info in self._files.describe():
            yield from self._names.describe(info)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._files.tensors():
            yield from self._names.convert(name, tensor)


@hookimpl
def engine_create_loader(checkpoint: Checkpoint, info: ModelInfo | None) -> Loader:
    return MistralLoader(checkpoint, info)
