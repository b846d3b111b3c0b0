"""What engine save-sharded wrote: each rank's finished layers in safetensors files of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError, ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl

from ._files import listing, regular
from ._safetensors import SafetensorsFiles

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1
PATTERN = "model-rank-{rank}-part-{part}.safetensors"


@dataclass(frozen=True)
class Options:
    """``pattern``: names of the files, with ``{rank}`` and ``{part}`` in them."""

    pattern: str = PATTERN


class ShardedStateLoader(Loader):
    """Rank r of n reads its own files alone; the state of another number of ranks is refused."""

    def __init__(self, checkpoint: Checkpoint, pattern: str) -> None:
        if pattern.count("{rank}") != 1 or pattern.count("{part}") != 1 or "/" in pattern:
            raise ConfigError(
                f"--model-loader-extra-config pattern {pattern!r}: {{rank}} and {{part}} must be in it once each, and no /.", fix=PATTERN
            )
        self._place = checkpoint.directory
        self._ranks = _found(self._place, pattern)
        self._files: SafetensorsFiles | None = None
        if not self._ranks:
            raise ModelFileError(
                f"{checkpoint.path} has no file like {pattern}; there is {listing(self._place)}.",
                fix="engine save-sharded MODEL --out DIR",
            )

    def serve_rank(self, rank: int, ranks: int) -> None:
        saved = max(self._ranks) + 1
        if sorted(self._ranks) != list(range(saved)):
            raise ModelFileError(f"{self._place}: files of ranks {sorted(self._ranks)} are there; one is missing.", fix="save it again")
        if saved != ranks:
            raise ModelFileError(
                f"{self._place} was saved for {saved} ranks, not for --tensor-parallel-size {ranks}.", fix=f"--tensor-parallel-size {saved}"
            )
        self._files = SafetensorsFiles(self._ranks[rank])

    def own_state(self) -> bool:
        return True

    def describe(self) -> list[TensorInfo]:
        """Of all ranks: what a plan must count."""
        return [info for files in self._ranks.values() for info in SafetensorsFiles(files).describe()]

    def nbytes(self) -> int:
        return sum(info.nbytes for info in self._own().describe())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        return self._own().tensors()

    def _own(self) -> SafetensorsFiles:
        return self._files or SafetensorsFiles(self._ranks[min(self._ranks)])


def _found(place: Path, pattern: str) -> dict[int, list[Path]]:
    """The files by rank, in the order of their parts; parts are numbered from 0 without a gap."""
    wanted = re.escape(pattern).replace(r"\{rank\}", r"(?P<rank>\d{1,6})").replace(r"\{part\}", r"(?P<part>\d{1,6})")
    parts: dict[int, dict[int, Path]] = {}
    for file in place.iterdir() if place.is_dir() else ():
        if match := re.fullmatch(wanted, file.name):
            parts.setdefault(int(match["rank"]), {})[int(match["part"])] = regular(file)
    for rank, numbered in parts.items():
        if sorted(numbered) != list(range(len(numbered))):
            missing = next(i for i in range(len(numbered)) if i not in numbered)
            name = pattern.replace("{rank}", str(rank)).replace("{part}", str(missing))
            raise ModelFileError(f"{place / name} is missing.", fix="save it again")
    return {rank: [numbered[part] for part in sorted(numbered)] for rank, numbered in sorted(parts.items())}


@hookimpl
def engine_create_loader(checkpoint: Checkpoint, options: Options | None) -> Loader:
    return ShardedStateLoader(checkpoint, (options or Options()).pattern)
