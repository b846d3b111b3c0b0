"""A dense weight whose parts still stand apart, as the checkpoint's files have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.layers.packed import DensePacked


class DenseParts(DensePacked):
    """``pieces`` [rows, inputs] each, all of one dtype, one below the other; they may be mapped files.

    A kernel that keeps a copy in another order makes it straight from ``pieces`` and calls ``release``: the weight is never in
    memory twice. For all others ``weight`` is one tensor on ``device``, made when it is first asked for.
    """

    def __init__(self, pieces: Sequence[Tensor], device: torch.device) -> None:
        self.pieces = tuple(pieces)
        self.exclusive = True
        self.outputs, self.inputs = sum(len(piece) for piece in pieces), pieces[0].shape[1]
        self._device = device
        self._whole: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """[outputs, inputs], in memory of its own."""
        if self._whole is None:
            if not self.pieces:
                raise RuntimeError("the weight was given back")
            self._whole = torch.empty(self.outputs, self.inputs, dtype=self.pieces[0].dtype, device=self._device)
            row = 0
            for piece in self.pieces:
                self._whole.narrow(0, row, len(piece)).copy_(piece)
                row += len(piece)
            self.pieces = ()
        return self._whole

    @weight.setter
    def weight(self, weight: Tensor) -> None:
        self._whole, self.pieces = weight, ()

    def settle(self) -> None:
        """After the kernel was made: where it did not give the weight back, make it one tensor and let the pieces go."""
        if self.pieces:
            _ = self.weight

    def release(self) -> None:
        """Let the pieces go, and give the memory of the whole weight back."""
        self.pieces = ()
        if self._whole is not None:
            super().release()

    def nbytes(self) -> int:
        """Bytes of the weight."""
        held = self.pieces[0] if self.pieces else self.weight
        return self.outputs * self.inputs * held.element_size()


def pieces_of(packed: DensePacked) -> tuple[Tensor, ...]:
    """The weight as tensors one below the other: several only where the parts still stand apart."""
    return packed.pieces if isinstance(packed, DenseParts) and packed.pieces else (packed.weight,)
