"""Reads tensors of several safetensors files as one set: headers first, then views of the mapped bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import TensorInfo

from ._header import read_header

if TYPE_CHECKING:
    from torch import Tensor


class SafetensorsFiles:
    """The tensors of ``files`` in the order of files and bytes; a name that two files offer is refused."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._infos: list[TensorInfo] | None = None

    def describe(self) -> list[TensorInfo]:
        """Headers of all files, read once. Raises :class:`ModelFileError` naming file and tensor."""
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
        """Mapped tensors, each on its own; pages are read when the tensor is used, and go with it."""
        from ._mapped import map_tensor

        for file, group in groupby(self.describe(), key=lambda info: info.file):
            infos = list(group)
            try:
                with Path(file).open("rb") as opened:
                    # the header's check has made sure that the tensors fill the file up to its end
                    begin = Path(file).stat().st_size - sum(info.nbytes for info in infos)
                    for info in infos:
                        yield info.name, map_tensor(opened.fileno(), begin, info)
                        begin += info.nbytes
            except (ValueError, OSError) as error:
                raise ModelFileError(f"{file}: {error}.", fix="download the file again") from error
