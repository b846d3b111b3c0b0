"""Weights from a NumPy archive, model.npz, named example."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1
CONFORMANCE = "example_conformance:TestExample"


class ExampleLoader(Loader):
    """Reads one array after the other; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        import numpy

        self.path = path
        try:
            self.archive: Any = numpy.load(path)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ModelFileError(f"{path} is not a whole NumPy archive ({error}).", fix="write it again with numpy.savez") from error

    def describe(self) -> Iterator[TensorInfo]:
        for name in self.archive.files:
            array = self.archive[name]
            yield TensorInfo(name, str(array.dtype), array.shape, array.nbytes, str(self.path))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        import torch

        for name in self.archive.files:
            yield name, torch.from_numpy(self.archive[name])

    def close(self) -> None:
        self.archive.close()


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Loader:
    return ExampleLoader(Path(checkpoint.path) / "model.npz")
