"""A recorded step: native operations in order, their arguments packed together, their buffers in one arena."""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.plugin.host_memory import zeros
from engine_devices._host_limits import last_cache_bytes
from engine_devices._linear import LinearArgs
from engine_devices._native import Call, Native, Operation
from engine_devices._weights import Panels

#: Buffers and argument structs begin at multiples of a cache line.
LINE = 64
#: Steps without prompts after which their memory is given back.
QUIET = 32


def pointers(kind: Any, base: int = 0) -> Iterator[int]:
    """Byte offsets of the pointers in an argument struct: its ``c_void_p`` fields, also those of structs and arrays in it."""
    if kind is ctypes.c_void_p:
        yield base
    elif issubclass(kind, ctypes.Structure):
        for name, field in ((entry[0], entry[1]) for entry in kind._fields_):
            yield from pointers(field, base + getattr(kind, name).offset)
    elif issubclass(kind, ctypes.Array):
        array: Any = kind
        for index in range(array._length_):
            yield from pointers(array._type_, base + index * ctypes.sizeof(array._type_))


class Buffers:
    """The memory that a step allocated while it was recorded, by address."""

    def __init__(self, allocated: list[Tensor]) -> None:
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in allocated}
        self.spans = sorted((base, size) for base, size in storages.items() if size)
        self._bases = [base for base, _ in self.spans]

    def find(self, address: int) -> int | None:
        """The number of the buffer in which that address lies."""
        index = bisect_right(self._bases, address) - 1
        if index < 0:
            return None
        base, size = self.spans[index]
        return index if address < base + size else None


def place(sizes: Mapping[int, int], first: dict[int, int], last: dict[int, int]) -> tuple[dict[int, int], int]:
    """Offsets in an arena for buffers of so many bytes that live from operation ``first`` to ``last``, and the arena's size in bytes.

    Buffers whose lives do not overlap share memory: each takes the lowest gap that is large enough.
    """
    offsets: dict[int, int] = {}
    living: list[tuple[int, int, int]] = []
    total = 0
    for buffer in sorted(first, key=lambda b: (first[b], b)):
        size = -(-sizes[buffer] // LINE) * LINE
        living = [entry for entry in living if entry[2] >= first[buffer]]
        offset = 0
        for start, end, _ in living:
            if start - offset >= size:
                break
            offset = max(offset, end)
        offsets[buffer] = offset
        living = sorted([*living, (offset, offset + size, last[buffer])])
        total = max(total, offset + size)
    return offsets, total


class Tape:
    """A step as the thread pool runs it. Its buffers lie in an arena at fixed offsets; :meth:`move` says where that is.

    ``calls`` with their arguments as recorded; ``buffers``: what the step allocated, alive;
    ``outputs``: what it returned. The step may write into other memory (the KV cache), which stays where it is.
    """

    def __init__(self, native: Native, calls: list[Call], buffers: Buffers, outputs: tuple[Tensor, ...]) -> None:
        self._block, starts = pack_calls(calls)
        self._words: NDArray[np.uint64] = np.frombuffer(self._block, np.uint64)
        fields, owners, first, last = self._uses(calls, starts, buffers)
        for tensor in outputs:
            owner = buffers.find(tensor.data_ptr())
            if owner is not None:
                first.setdefault(owner, len(calls))
                last[owner] = len(calls)
        offsets, self.nbytes = place({buffer: buffers.spans[buffer][1] for buffer in first}, first, last)
        shift = np.array([offsets[o] - buffers.spans[o][0] for o in owners], np.int64)
        self._fields = np.array(fields, np.int64)
        self._offsets = self._words[self._fields].astype(np.int64) + shift
        self._kept = [kept for call in calls for kept in call.keep if not _inside(kept, buffers)]
        self._outputs = [_Output.of(tensor, buffers, offsets) for tensor in outputs]
        self.outputs: tuple[Tensor, ...] = ()
        base = ctypes.addressof(self._block)
        entries = (Operation(native.address(call.kernel), base + start) for call, start in zip(calls, starts, strict=True))
        self.operations = (Operation * len(calls))(*entries)

    def _uses(self, calls: list[Call], starts: list[int], buffers: Buffers) -> tuple[list[int], list[int], dict[int, int], dict[int, int]]:
        """Words that point into the step's buffers, the buffer of each, and each buffer's first and last operation."""
        fields, owners = [], []
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        layouts: dict[type[Any], list[int]] = {}
        words = self._words.tolist()
        for index, (call, start) in enumerate(zip(calls, starts, strict=True)):
            kind = type(call.arguments)
            if kind not in layouts:
                layouts[kind] = list(pointers(kind))
            for offset in layouts[kind]:
                word = (start + offset) // 8
                owner = buffers.find(words[word])
                if owner is not None:
                    fields.append(word)
                    owners.append(owner)
                    first.setdefault(owner, index)
                    last[owner] = index
        return fields, owners, first, last

    def move(self, arena: Tensor) -> None:
        """The arena is now these bytes, at least ``nbytes`` from an address that divides by 64."""
        self._words[self._fields] = (self._offsets + arena.data_ptr()).astype(np.uint64)
        self.outputs = tuple(output.within(arena) for output in self._outputs)


@dataclass(frozen=True, slots=True)
class _Output:
    """A result: bytes of the arena, or a tensor that is not in it."""

    fixed: Tensor | None
    offset: int
    like: Tensor

    @classmethod
    def of(cls, tensor: Tensor, buffers: Buffers, offsets: dict[int, int]) -> _Output:
        owner = buffers.find(tensor.data_ptr())
        if owner is None:
            return cls(tensor, 0, tensor)
        like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return cls(None, offsets[owner] + tensor.data_ptr() - buffers.spans[owner][0], like)

    def within(self, arena: Tensor) -> Tensor:
        if self.fixed is not None:
            return self.fixed
        return within(arena, self.offset, self.like)


def within(arena: Tensor, offset: int, like: Tensor) -> Tensor:
    """The tensor of that form whose first element is ``offset`` bytes into the arena."""
    if not like.numel():
        return torch.empty_like(like, device=arena.device)
    reach = 1 + sum((n - 1) * stride for n, stride in zip(like.shape, like.stride(), strict=True))
    flat = arena[offset : offset + reach * like.element_size()].view(like.dtype)
    return flat.as_strided(like.shape, like.stride())


def pack_calls(calls: list[Call]) -> tuple[Any, list[int]]:
    """Copies of all argument structs side by side, and where each begins: steps read them from first to last.

    Where the next step will find none of its weights in a cache, products are told: what else is there then stays (measured: what Python
    does between two steps takes 0.30 ms instead of 0.50).
    """
    starts, end = [], 0
    for call in calls:
        starts.append(end)
        end += -(-ctypes.sizeof(call.arguments) // 8) * 8
    block = (ctypes.c_char * max(end, 8))()
    base = ctypes.addressof(block)
    for call, start in zip(calls, starts, strict=True):
        ctypes.memmove(base + start, ctypes.addressof(call.arguments), ctypes.sizeof(call.arguments))
    if weight_bytes(calls) > last_cache_bytes():
        for call, start in zip(calls, starts, strict=True):
            if isinstance(call.arguments, LinearArgs):
                LinearArgs.from_address(base + start).once = 1
    return block, starts


def weight_bytes(calls: list[Call]) -> int:
    """Bytes of the weights that the calls multiply, each counted once."""
    found = {id(kept): kept.nbytes for call in calls for kept in call.keep if isinstance(kept, Panels)}
    return sum(found.values())


def _inside(kept: object, buffers: Buffers) -> bool:
    return isinstance(kept, Tensor) and buffers.find(kept.data_ptr()) is not None


class Movable(Protocol):
    """What lies in the arena."""

    def move(self, arena: Tensor, /) -> None: ...


class Arena:
    """Memory that all tapes of a recorder use, one after the other; grows to the largest.

    It is a mapping of its own, in huge pages: what was outgrown leaves no hole in the allocator's memory.
    What only long prompts needed goes back to the system (Linux) when none has come for :data:`QUIET` steps.
    """

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)
        self._tapes: list[Movable] = []
        self._held = 0
        self._quiet = 0

    def join(self, tape: Movable) -> None:
        """Tell ``tape`` from now on where the memory is."""
        self._tapes.append(tape)

    def hold(self, tape: Tape) -> None:
        """Give ``tape`` its memory. Results of other tapes are lost if the arena has to grow."""
        self.join(tape)
        self.keep(tape.nbytes)
        if not self.reserve(tape.nbytes):
            tape.move(self.memory)

    def keep(self, nbytes: int) -> None:
        """So many bytes are never given back."""
        self._held = max(self._held, nbytes)

    def reserve(self, nbytes: int) -> bool:
        """Have at least that many bytes. True: the memory is elsewhere now, as all tapes were told."""
        if nbytes <= len(self.memory):
            return False
        raw = zeros((nbytes + LINE,), torch.uint8)
        start = -raw.data_ptr() % LINE
        self.memory = raw[start : start + nbytes]
        for each in self._tapes:
            each.move(self.memory)
        return True

    def passed(self, *, ragged: bool) -> None:
        """A step has run on a tape whose size is held, or on another (``ragged``)."""
        self._quiet = 0 if ragged else self._quiet + 1
        if self._quiet == QUIET and sys.platform == "linux":
            page = mmap.PAGESIZE
            start = -(-(self.memory.data_ptr() + self._held) // page) * page
            length = (self.memory.data_ptr() + len(self.memory)) // page * page - start
            if length > 0:
                ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
