"""Memory-mapped .gguf files, whole or split, every header checked first; each tensor under its name in the original checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl
from engine_plugins._gguf.cursor import refuse
from engine_plugins._gguf.model import GgufModel, Named, Placed

from ._files import listing

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class GgufLoader(Loader):
    """Plain tensors come as ``<layer>.weight`` and ``<layer>.bias``, blocks as ``<layer>.<type>`` (``q4_k``): uint8 [outputs, row bytes].

    Experts that the file keeps stacked come one by one.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if not checkpoint.directory.is_file():
            there = listing(checkpoint.directory) if checkpoint.directory.is_dir() else "nothing"
            raise ModelFileError(f"{checkpoint.path} is no .gguf file; there is {there}.", fix="name the .gguf file as the model")
        self._model = GgufModel(checkpoint.directory)

    def describe(self) -> Iterator[TensorInfo]:
        """As ``tensors`` yields them."""
        for named in self._names():
            entry = named.placed.entry
            experts = 1 if named.expert is None else entry.shape[0]
            shape = entry.shape if named.expert is None else entry.shape[1:]
            if entry.type.plain is None:
                shape = (*shape[:-1], shape[-1] // entry.type.elements * entry.type.nbytes)
            yield TensorInfo(named.name, entry.type.plain or "uint8", shape, entry.nbytes // experts, str(entry.path))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Views of the mapped file where the order is the checkpoint's, copies where rows are put back in order."""
        from ._gguf_tensors import tensors

        return tensors(self._model, self._names())

    def _names(self) -> Iterator[Named]:
        for placed in self._model.placed():
            yield from self._named(placed)

    def _named(self, placed: Placed) -> Iterator[Named]:
        entry = placed.entry
        kind = placed.kind if entry.type.plain is not None else entry.type.name.lower()
        if entry.type.plain is None and placed.kind != "weight":
            refuse(entry.path, f"tensor {entry.name!r} is {entry.type.name}; plain numbers were expected of a {placed.kind}")
        if "*" not in placed.name:
            yield Named(f"{placed.name}.{kind}", placed)
            return
        if len(entry.shape) != 3:
            refuse(entry.path, f"tensor {entry.name!r} has the shape {list(entry.shape)}; [experts, outputs, inputs] was expected")
        for expert in range(entry.shape[0]):
            yield Named(f"{placed.name.replace('*', str(expert))}.{kind}", placed, expert)


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Loader:
    return GgufLoader(checkpoint)
