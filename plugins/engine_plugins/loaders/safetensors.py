"""Memory-mapped .safetensors files, every header checked first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl

from ._files import SAFETENSORS, listing, weight_files
from ._header import read_header

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class SafetensorsLoader(Loader):
    """Reads the shards one after the other, each in the order of its bytes."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._files = weight_files(checkpoint, SAFETENSORS)
        self._infos: list[TensorInfo] | None = None
        if not self._files:
            raise ModelFileError(
                f"{checkpoint.path} has no .safetensors file; there is {listing(checkpoint.directory)}.",
                fix="--load-format auto",
            )

    def describe(self) -> list[TensorInfo]:
        """Headers of all shards; a name that two shards offer is refused."""
        if self._infos is None:
            homes: dict[str, str] = {}
            infos = [info for file in self._files for info in read_header(file)]
            for info in infos:
                if info.name in homes:
                    raise ModelFileError(f"tensor {info.name!r} is in two files: {homes[info.name]} and {info.file}.")
                homes[info.name] = info.file
            self._infos = infos
        return self._infos

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Views of the mapped files; pages are read when the tensor is used."""
        from safetensors import SafetensorError, safe_open

        for file, infos in groupby(self.describe(), key=lambda info: info.file):
            try:
                with safe_open(file, framework="pt", device="cpu") as opened:
                    for info in infos:
                        yield info.name, opened.get_tensor(info.name)
            except (SafetensorError, OSError) as error:
                raise ModelFileError(f"{Path(file)}: {error}.", fix="download the file again") from error


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Loader:
    return SafetensorsLoader(checkpoint)
