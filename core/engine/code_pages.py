"""Libraries' pages in memory: let go of those that come back from the page cache when they are needed again."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_Span = tuple[int, int]
#: Of Linux's mman.h and elf.h.
_DONT_NEED, _LOAD, _WRITABLE = 4, 1, 2


class _Segment(ctypes.Structure):
    """Elf64_Phdr."""

    _fields_ = [
        ("type", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("offset", ctypes.c_uint64), ("address", ctypes.c_uint64),
        ("physical", ctypes.c_uint64), ("in_file", ctypes.c_uint64), ("in_memory", ctypes.c_uint64), ("align", ctypes.c_uint64),
    ]  # fmt: skip


class _Library(ctypes.Structure):
    """The beginning of dl_phdr_info."""

    _fields_ = [
        ("base", ctypes.c_uint64), ("name", ctypes.c_char_p), ("segments", ctypes.POINTER(_Segment)), ("count", ctypes.c_uint16),
    ]  # fmt: skip


def resident() -> int:
    """Bytes of files, and of memory shared with other processes, that this process has mapped and present; 0 where the system does not
    tell it the way Linux does."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def forget() -> None:
    """Let go of the libraries' pages that nothing has written to: what is still needed comes back from the page cache within microseconds,
    what only the start ran does not (of torch 45 MiB). Where the system does not tell the way Linux does, nothing happens.

    Safe while other threads load or unload libraries: the dynamic loader does neither while it names those that it has, and what it maps
    as read-only it will not write to.
    """
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return
    # The interpreter's lock is kept: a thread that has it and waits for the loader would never get on.
    system: Any = ctypes.PyDLL(None)
    try:
        unwritten, madvise, every = _unwritten(), system.madvise, system.dl_iterate_phdr
    except (OSError, ValueError, AttributeError):
        return
    page = os.sysconf("SC_PAGE_SIZE")

    def each(library: Any, _size: int, _data: int | None) -> int:
        spans = _read_only(library.contents, page)
        for start, end in unwritten:
            if any(first <= start and end <= last for first, last in spans):
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)
        return 0

    every(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)(each), None)


def _read_only(library: _Library, page: int) -> list[_Span]:
    """Where the parts of a loaded library lie that are mapped for reading only, in whole pages."""
    found = []
    for segment in library.segments[: library.count]:
        if segment.type == _LOAD and not segment.flags & _WRITABLE:
            start = library.base + segment.address
            found.append((start // page * page, -(-(start + segment.in_memory) // page) * page))
    return found


def _unwritten() -> list[_Span]:
    """The libraries' mappings that cannot be written to and hold nothing but the file's own bytes."""
    found: list[_Span] = []
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as smaps:
        place: _Span | None = None
        for line in smaps:
            words = line.split()
            if not words[0].endswith(":"):
                start, _, end = words[0].partition("-")
                code = len(words) > 5 and words[1] in ("r-xp", "r--p") and ".so" in words[5]
                place = (int(start, 16), int(end, 16)) if code else None
            elif words[0] == "Anonymous:" and words[1] == "0" and place is not None:
                found.append(place)
    return found
