"""Steps of any number of rows and sequences from two recordings: whatever differs between them grows with the one or the other."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.plugin import CannotRecord, RaggedReplay, UnderWay
from engine_devices._begun import begin
from engine_devices._native import Call, Native, Operation
from engine_devices._tape import Arena, Buffers, pack_calls, place, pointers, within

#: Rows, sequences and wanted rows of the recordings: small, without a common factor, more rows than some kernels treat in a way of their
#: own. More rows are wanted than there are: then what grows with them and is not told from what grows with the rows is never too small.
SHAPES = ((11, 3, 13), (26, 7, 35))
#: Buffers are laid out for powers of two of rows from here on; kernels may round rows up to so many.
LEAST_ROWS = 64
#: And for powers of two of wanted rows from here on.
LEAST_WANTED = 8


@dataclass(frozen=True)
class Recording:
    """A step of ``rows`` rows of ``sequences`` sequences, of which ``wanted`` are wanted, as it ran."""

    rows: int
    sequences: int
    wanted: int
    calls: list[Call]
    buffers: Buffers
    outputs: tuple[Tensor, ...]


class Fields:
    """Integers of the packed arguments that are multiples of one count."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[list[int], list[int]]] = {4: ([], []), 8: ([], [])}
        self._views: list[tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, byte: int, size: int, factor: int) -> None:
        """The integer of ``size`` bytes at ``byte`` is ``factor`` times the count."""
        places, factors = self._found[size]
        places.append(byte // size)
        factors.append(factor)

    def bind(self, block: Any) -> None:
        """The memory that the arguments are in."""
        kinds: dict[int, Any] = {4: np.int32, 8: np.int64}
        self._views = [
            (np.frombuffer(block, kinds[size]), np.array(places, np.int64), np.array(factors, np.int64))
            for size, (places, factors) in self._found.items()
        ]

    def set(self, count: int) -> None:
        """Write the count."""
        for view, places, factors in self._views:
            view[places] = factors * count


class RaggedTape(RaggedReplay):
    """The operations of two recordings, with rows, sequences and wanted rows to be filled in.

    Raises :class:`CannotRecord` where they differ in more than counts. Recordings with as many sequences as rows are decode steps: their
    memory is held, as a :class:`Tape`'s is.
    """

    def __init__(self, native: Native, arena: Arena, first: Recording, second: Recording) -> None:
        if [call.kernel for call in first.calls] != [call.kernel for call in second.calls]:
            raise CannotRecord("steps of different sizes run different operations")
        self._native = native
        self._arena = arena
        self._block, starts = pack_calls(first.calls)
        self._words: NDArray[np.uint64] = np.frombuffer(self._block, np.uint64)
        self.least = min(first.rows, second.rows)
        self._decodes = first.rows == first.sequences
        comparison = Comparison(first, second)
        for index, start in enumerate(starts):
            comparison.compare(index, start)
        self._outputs = [comparison.output(*pair) for pair in zip(first.outputs, second.outputs, strict=True)]
        self._counted = (comparison.rows, comparison.sequences, comparison.wanted)
        self._pointers, self._lives = comparison.pointers, comparison.lives
        self._sizes = {buffer: comparison.size(buffer) for buffer in self._lives}
        for fields in self._counted:
            fields.bind(self._block)
        self._kept = [kept for call in first.calls for kept in call.keep if not comparison.owns(kept)]
        self._layouts: dict[tuple[int, int], tuple[dict[int, int], int]] = {}
        self._capacity = (0, 0)
        self._counts = (-1, -1, -1)
        self._results: tuple[Tensor, ...] = ()
        self.nbytes = 0
        base = ctypes.addressof(self._block)
        entries = (Operation(native.address(c.kernel), base + start) for c, start in zip(first.calls, starts, strict=True))
        self._operations = (Operation * len(starts))(*entries)
        arena.join(self)

    def run(self, rows: int, sequences: int, wanted: int = 0) -> tuple[Tensor, ...]:
        """See the contract; views of the arena."""
        self._set(rows, sequences, wanted)
        self._native.run_list(self._operations)
        self._over()
        return self._where(rows, wanted)

    def begin(self, rows: int, sequences: int) -> UnderWay | None:
        """See the contract."""
        self._set(rows, sequences, 0)
        return begin(self._native, self._operations, lambda: self._where(rows, 0), self._over)

    def _set(self, rows: int, sequences: int, wanted: int) -> None:
        """Write the counts into the arguments."""
        self._reserve(rows, wanted)
        counts = (rows, sequences, wanted)
        if self._counts != counts:
            for fields, count in zip(self._counted, counts, strict=True):
                fields.set(count)
            self._counts, self._results = counts, ()

    def _over(self) -> None:
        """A step has run."""
        self._arena.passed(ragged=not self._decodes)

    def _where(self, rows: int, wanted: int) -> tuple[Tensor, ...]:
        """The results."""
        if not self._results:
            offsets, memory = self._layouts[self._capacity][0], self._arena.memory
            self._results = tuple(within(memory, offsets[owner] + offset, shaped(rows, wanted)) for owner, offset, shaped in self._outputs)
        return self._results

    def move(self, memory: Tensor) -> None:
        """The arena is now these bytes."""
        self._results = ()
        if self._capacity[0]:
            offsets = self._layouts[self._capacity][0]
            words = np.array([word for word, _, _ in self._pointers], np.int64)
            places = np.array([offsets[owner] + offset for _, owner, offset in self._pointers], np.int64)
            self._words[words] = (places + memory.data_ptr()).astype(np.uint64)

    def _reserve(self, rows: int, wanted: int) -> None:
        """Lay the buffers out for so many rows and wanted rows."""
        capacity = power_above(rows, LEAST_ROWS), power_above(wanted, LEAST_WANTED)
        if capacity == self._capacity:
            return
        if capacity not in self._layouts:
            room = (1, capacity[0] + LEAST_ROWS, capacity[1])
            sizes = {buffer: sum(a * b for a, b in zip(size, room, strict=True)) for buffer, size in self._sizes.items()}
            begins = {buffer: life[0] for buffer, life in self._lives.items()}
            ends = {buffer: life[1] for buffer, life in self._lives.items()}
            self._layouts[capacity] = place(sizes, begins, ends)
        self._capacity, self.nbytes = capacity, self._layouts[capacity][1]
        if self._decodes:
            self._arena.keep(self.nbytes)
        if not self._arena.reserve(self.nbytes):
            self.move(self._arena.memory)


class Comparison:
    """Two recordings side by side. ``pointers``: (word, buffer, offset in it) of the first; ``lives``: its buffers' first and last use."""

    def __init__(self, first: Recording, second: Recording) -> None:
        self._pair = (first, second)
        self._twins: dict[int, int] = {}
        self.rows, self.sequences, self.wanted = Fields(), Fields(), Fields()
        self.pointers: list[tuple[int, int, int]] = []
        self.lives: dict[int, tuple[int, int]] = {}

    def size(self, buffer: int) -> tuple[int, int, int]:
        """Bytes of a buffer: whatever the step's size, per row, and per wanted row."""
        (one, other), twin = self._pair, self._twins[buffer]
        sizes = one.buffers.spans[buffer][1], other.buffers.spans[twin][1]
        if sizes[0] == sizes[1]:
            return sizes[0], 0, 0
        if one.wanted and sizes[0] * other.wanted == sizes[1] * one.wanted:
            return 0, 0, -(-sizes[0] // one.wanted)
        return 0, max(-(-sizes[0] // one.rows), -(-sizes[1] // other.rows)), 0

    def owns(self, kept: object) -> bool:
        """Whether that is memory which the first step allocated."""
        return isinstance(kept, Tensor) and self._pair[0].buffers.find(kept.data_ptr()) is not None

    def compare(self, index: int, start: int) -> None:
        """Find what differs in the arguments of one operation."""
        one, other = (recording.calls[index].arguments for recording in self._pair)
        addresses = set(pointers(type(one)))
        for offset, kind in leaves(type(one)):
            a, b = (kind.from_address(ctypes.addressof(arguments) + offset).value for arguments in (one, other))
            if offset in addresses:
                self._pointer(index, (start + offset) // 8, a or 0, b or 0)
            elif a != b and not self._count(start + offset, kind, a, b):
                raise CannotRecord(f"an argument of {self._pair[0].calls[index].kernel} depends on the step's size in a way of its own")

    def _pointer(self, index: int, word: int, a: int, b: int) -> None:
        one, other = self._pair
        owner, twin = one.buffers.find(a), other.buffers.find(b)
        if owner is None and twin is None and a == b:
            return
        if owner is None or twin is None or self._twins.setdefault(owner, twin) != twin:
            raise CannotRecord("steps of different sizes use different memory")
        offset = a - one.buffers.spans[owner][0]
        if offset != b - other.buffers.spans[twin][0]:
            raise CannotRecord("the place in a buffer depends on the step's size")
        self.pointers.append((word, owner, offset))
        self.lives[owner] = (self.lives.get(owner, (index, index))[0], index)

    def _count(self, byte: int, kind: Any, a: Any, b: Any) -> bool:
        one, other = self._pair
        for fields, name in ((self.rows, "rows"), (self.sequences, "sequences"), (self.wanted, "wanted")):
            ours, theirs = getattr(one, name), getattr(other, name)
            if not ours:
                continue
            factor, rest = divmod(a, ours)
            if isinstance(a, int) and not rest and factor * theirs == b and factor > 0:
                fields.add(byte, ctypes.sizeof(kind), int(factor))
                return True
        return False

    def output(self, one: Tensor, other: Tensor) -> tuple[int, int, Callable[[int, int], Tensor]]:
        """Where a result is, and its shape for a number of rows and of wanted ones."""
        owner = self._pair[0].buffers.find(one.data_ptr())
        if owner is None or owner not in self.lives or one.stride() != other.stride() or one.shape[1:] != other.shape[1:]:
            raise CannotRecord("a result is not made by the native operations, row by row")
        self.lives[owner] = (self.lives[owner][0], len(self._pair[0].calls))
        strides, tail, dtype = one.stride(), tuple(one.shape[1:]), one.dtype
        some = (len(one), len(other)) == tuple(recording.wanted for recording in self._pair)

        def shaped(rows: int, wanted: int) -> Tensor:
            return torch.empty_strided((wanted if some else rows, *tail), strides, dtype=dtype, device="meta")

        return owner, one.data_ptr() - self._pair[0].buffers.spans[owner][0], shaped


def power_above(count: int, least: int) -> int:
    """The smallest power of two that is neither below ``count`` nor below ``least``, which is one."""
    return max(least, 1 << (count - 1).bit_length()) if count else least


def leaves(kind: Any, base: int = 0) -> Iterator[tuple[int, Any]]:
    """Byte offset and type of every number and pointer in an argument struct."""
    if issubclass(kind, ctypes.Structure):
        for entry in kind._fields_:
            yield from leaves(entry[1], base + getattr(kind, entry[0]).offset)
    elif issubclass(kind, ctypes.Array):
        array: Any = kind
        for index in range(array._length_):
            yield from leaves(array._type_, base + index * ctypes.sizeof(array._type_))
    else:
        yield base, kind
