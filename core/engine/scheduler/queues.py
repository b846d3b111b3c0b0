"""Sequences in the order of the policy."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from engine.scheduler.sequence import Sequence, State


class Queue:
    """A heap by policy key: adding and taking cost O(log n), looking at the head O(1).

    Sequences that ended are skipped.
    """

    __slots__ = ("_ended", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[Any, int, Sequence]] = []
        self._ended = 0

    def __len__(self) -> int:
        return len(self._heap) - self._ended

    def push(self, sequence: Sequence) -> None:
        """Queue it; the policy's key decides where."""
        heappush(self._heap, (sequence.key, sequence.number, sequence))

    def head(self) -> Sequence | None:
        """The one that runs next."""
        while self._heap and self._heap[0][2].state is State.ENDED:
            heappop(self._heap)
            self._ended -= 1
        return self._heap[0][2] if self._heap else None

    def take(self, sequence: Sequence) -> None:
        """Take ``sequence`` out.

        Cheap for the head, which it is unless a policy's ``may_preempt`` contradicts its ``key``.
        """
        if self.head() is sequence:
            heappop(self._heap)
        else:
            self._heap.remove((sequence.key, sequence.number, sequence))
            heapify(self._heap)

    def note_ended(self) -> None:
        """One of the queued sequences has ended. Keeps the memory of ended ones below that of the living."""
        self._ended += 1
        if 2 * self._ended > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].state is not State.ENDED]
            heapify(self._heap)
            self._ended = 0


class Running:
    """The running sequences, the best policy key first."""

    __slots__ = ("_sequences",)

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def __reversed__(self) -> Iterator[Sequence]:
        return reversed(self._sequences)

    def worst(self) -> Sequence:
        """The one with the largest key."""
        return self._sequences[-1]

    def add(self, sequence: Sequence) -> None:
        """Insert in order."""
        insort(self._sequences, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Take out; it must be there."""
        index = bisect_left(self._sequences, _order(sequence), key=_order)
        if self._sequences[index] is not sequence:
            raise RuntimeError(f"sequence {sequence.number} is not running")
        del self._sequences[index]


def _order(sequence: Sequence) -> tuple[Any, int]:
    return sequence.key, sequence.number
