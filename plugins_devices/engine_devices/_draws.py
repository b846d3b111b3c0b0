"""Draws on the native kernels: their arguments are made once for as long as the same arrays come, as long as the same sequences go on."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine_devices._arguments import element_type
from engine_devices._grammars import SampleMasked, step_grammars
from engine_devices._native import Native
from engine_devices._row_arguments import Best, Forbid, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from engine.plugin import GrammarSteps

    #: Temperature, top_k, top_p, min_p and the uniform number of each row; rows and bits of masks.
    Drawing = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]
    Masks = tuple[NDArray[np.int64], NDArray[np.int32]]

#: ``ENGINE_BEST_CHUNK`` of native/rows.h.
BEST_CHUNK = 8192


class Draw:
    """A draw with these arrays. What they hold may change from one :meth:`run` to the next, but not what ``min_p`` holds."""

    def __init__(self, native: Native, drawing: Drawing, masks: Masks | None, steps: GrammarSteps | None) -> None:
        self._native = native
        self._drawing, self._masks, self._steps = drawing, masks, steps
        temperature, top_k, top_p, min_p, chance = drawing
        with np.errstate(divide="ignore"):
            self._deepest = -np.log(min_p, dtype=np.float32)
        self._sample = Sample(
            temperature=temperature.ctypes.data, top_p=top_p.ctypes.data, deepest=self._deepest.ctypes.data,
            top_k=top_k.ctypes.data, chance=chance.ctypes.data, rows=len(chance),
        )  # fmt: skip
        self._forbid = None if masks is None else forbid(*masks)
        #: Where fewer rows than threads are masked, threads share rows, and the largest is found apart.
        self._best = Best(rows=len(chance)) if masks is not None and len(chance) < native.threads else None
        self._calls = self._called()
        self._operations = native.listed(self._calls)

    def of(self, drawing: Drawing, masks: Masks | None, steps: GrammarSteps | None) -> bool:
        """Whether it is one with these arrays."""
        if steps is not self._steps or not all(map(_same, drawing, self._drawing)):
            return False
        return masks is self._masks or (masks is not None and self._masks is not None and all(map(_same, masks, self._masks)))

    def run(self, logits: Tensor, best: Tensor) -> Tensor:
        """One token per row of logits, int64; ``best``: the largest of each row, which masks have written."""
        rows, size = logits.shape
        token = torch.empty(rows, dtype=torch.int64)
        sample = self._sample
        sample.logits, sample.best, sample.token = logits.data_ptr(), best.data_ptr(), token.data_ptr()
        sample.row, sample.size, sample.type = logits.stride(0), size, element_type(logits.dtype)
        if self._forbid is not None and self._masks is not None:
            aim(self._forbid, logits, *self._masks)
        scratch = self._aim_best(rows, size) if self._best is not None else None
        self._native.run_list(self._operations)
        del scratch
        return token

    def _called(self) -> list[tuple[str, ctypes.Structure]]:
        """The operations of a run."""
        draw = ("engine_sample", self._sample)
        if self._forbid is None:
            return [draw]
        stepped = None if self._steps is None else step_grammars(self._steps)
        if self._best is not None:
            before = [] if stepped is None else [("engine_step_grammars", stepped)]
            return [*before, ("engine_forbid", self._forbid), ("engine_best", self._best), draw]
        self._stepped = stepped
        whole = SampleMasked(masks=ctypes.addressof(self._forbid), draw=ctypes.addressof(self._sample))
        if stepped is not None:
            whole.steps = ctypes.addressof(stepped)
        return [("engine_sample_masked", whole)]

    def _aim_best(self, rows: int, size: int) -> tuple[Tensor, Tensor]:
        """What finding the largest writes beside them."""
        place = torch.empty(rows, dtype=torch.int64)
        scratch = torch.empty(2 * rows * -(-size // BEST_CHUNK), dtype=torch.int64)
        best, sample = self._best, self._sample
        if best is not None:
            best.logits, best.value, best.place, best.scratch = sample.logits, sample.best, place.data_ptr(), scratch.data_ptr()
            best.row, best.size, best.type = sample.row, size, sample.type
        return place, scratch


def forbid(rows: NDArray[np.int64], bits: NDArray[np.int32]) -> Forbid:
    """The kernel's arguments but for the logits."""
    return Forbid(rows=rows.ctypes.data, bits=bits.ctypes.data, words=bits.strides[0] // bits.itemsize, count=len(rows))


def aim(arguments: Forbid, logits: Tensor, rows: NDArray[np.int64], bits: NDArray[np.int32]) -> None:
    """Have those masks restrict these logits. Raises ValueError where they do not cover them."""
    size = logits.shape[1]
    if len(rows) != len(bits) or (len(rows) and 32 * bits.shape[1] < size):
        raise ValueError(f"masks {bits.shape} of {len(rows)} rows do not cover {size} columns")
    arguments.logits, arguments.row, arguments.size = logits.data_ptr(), logits.stride(0), size
    arguments.type = element_type(logits.dtype)


def _same(one: object, other: object) -> bool:
    return one is other
