"""Contracts of reading a checkpoint: loaders and config formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.facts import TensorInfo


class Loader(ABC):
    """Reads a checkpoint's tensors. Made once per worker; knows files, not models.

    ``describe`` serves ``engine plan``: it reads headers only and must not import torch where the format permits.
    ``tensors`` yields each tensor once, lazily, in any order, under its name in the checkpoint, on the CPU
    (memory-mapped where possible). Both raise :class:`engine.errors.ModelFileError` naming file and tensor.
    """

    @abstractmethod
    def describe(self) -> Iterable[TensorInfo]:
        """Name, dtype, shape and size of every tensor, from headers alone."""

    @abstractmethod
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors, lazily. A second call starts again."""

    def nbytes(self) -> int:
        """Bytes of all tensors (the progress bar's total)."""
        return sum(info.nbytes for info in self.describe())

    def serve_rank(self, rank: int, ranks: int) -> None:
        """Told once, before ``tensors``, which of how many tensor-parallel ranks is served (the plan asks as rank 0).

        For loaders whose files differ by rank. Raises :class:`engine.errors.ModelFileError` where there are none for that many.
        """

    def own_state(self) -> bool:
        """Whether the tensors are a rank's finished layers under the engine's names (``engine.layers.state``), not a checkpoint's."""
        return False

    def complete(self) -> bool:
        """Whether every parameter of the model must appear. False only for loaders that invent tensors (``dummy``)."""
        return True

    def invent(self, name: str, tensor: Tensor) -> bool:
        """Fill a parameter that no checkpoint tensor filled, in place; True where that was done.

        The worker calls it after ``Model.load`` for every name that ``load`` returned, before ``Model.finish``.
        A parameter that stays unfilled is an error where ``complete()``.
        """
        return False

    def close(self) -> None:
        """Release files. May be called twice."""


class ConfigFormat(ABC):
    """Reads the model's configuration. Torch-free and transformers-free."""

    @abstractmethod
    def read(self) -> dict[str, Any]:
        """The configuration in the spelling of ``config.json`` (``architectures``, ``hidden_size`` …), legacy keys normalised.

        Raises :class:`engine.errors.ModelFileError` naming the file and key.
        """

    def generation(self) -> dict[str, Any]:
        """The content of ``generation_config.json``, or an empty dict."""
        return {}
