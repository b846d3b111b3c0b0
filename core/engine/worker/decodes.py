"""Recorded decode steps: every batch size from a few recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.plugin.contracts.device import CannotRecord
from engine.worker.buffers import Buffers

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.contracts.device import RaggedReplay, Recorder, Replay, UnderWay

#: Batch sizes recorded together. Those from the first of a pair to below the first of the next follow from the two: kernels may treat
#: one row, and few rows, in ways of their own.
PAIRS = ((2, 7), (9, 26))


class Decodes:
    """Decode steps of ``body(size)`` on the first rows of ``buffers``, recorded when a size of their pair first occurs.

    Where sizes cannot be recorded together, each is recorded by itself, which is the step itself and a little more.
    """

    def __init__(self, recorder: Recorder, buffers: Buffers, body: Callable[[int], tuple[Tensor, ...]]) -> None:
        self._recorder = recorder
        self._buffers = buffers
        self._body = body
        self._pairs: dict[tuple[int, int], RaggedReplay] = {}
        self._single: dict[int, Replay] = {}
        self._apart = False

    def prepare(self, size: int) -> None:
        """Record what that size follows from, if it is not yet. Overwrites the buffers. Raises :class:`CannotRecord`."""
        pair = None if self._apart else pair_of(size)
        if pair is None or pair in self._pairs:
            return
        try:
            self._pairs[pair] = self._recorder.record_ragged(
                self._buffers.fill_harmlessly, lambda rows, *_: self._body(rows), shapes=tuple((each, each, 0) for each in pair)
            )
        except CannotRecord:
            # What keeps sizes apart need not keep one size from being recorded.
            self._apart = True

    def run(self, size: int) -> tuple[Tensor, ...]:
        """The step on what the buffers hold. Raises :class:`CannotRecord`."""
        pair = None if self._apart else pair_of(size)
        if pair is not None:
            return self._pairs[pair].run(size, size)
        replay = self._single.get(size)
        if replay is None:
            self._single[size] = replay = self._recorder.record(lambda: self._body(size))
            return replay.outputs
        return replay.run()

    def begin(self, size: int) -> UnderWay | None:
        """Begin the step on what the buffers hold, if it is recorded and the device begins steps."""
        pair = None if self._apart else pair_of(size)
        if pair is not None:
            replay = self._pairs.get(pair)
            return None if replay is None else replay.begin(size, size)
        single = self._single.get(size)
        return None if single is None else single.begin()

    def describe(self) -> str:
        """Which sizes are recorded."""
        ends = [*(first for first, _ in PAIRS[1:]), None]
        spans = {pair: f"{pair[0]} to {end - 1}" if end else f"{pair[0]} and more" for pair, end in zip(PAIRS, ends, strict=True)}
        return ", ".join([*map(str, sorted(self._single)), *(spans[pair] for pair in sorted(self._pairs))])


def pair_of(size: int) -> tuple[int, int] | None:
    """The pair that a size follows from; None: it is recorded by itself."""
    return next((pair for pair in reversed(PAIRS) if size >= pair[0]), None)
