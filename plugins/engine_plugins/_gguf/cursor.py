"""Reads numbers and strings of a GGUF header from a mapped file, and never past its end."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from engine.errors import ModelFileError

#: Metadata types by their number: struct's letter and size. 8 is a string, 9 an array.
SCALARS: dict[int, tuple[str, int]] = {
    0: ("B", 1), 1: ("b", 1), 2: ("H", 2), 3: ("h", 2), 4: ("I", 4), 5: ("i", 4), 6: ("f", 4), 7: ("?", 1),
    10: ("Q", 8), 11: ("q", 8), 12: ("d", 8),
}  # fmt: skip
STRING, ARRAY, BOOL = 8, 9, 7
#: A vocabulary's merges, the longest arrays that there are, have below a million entries.
MOST_STRINGS = 4_000_000
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Values:
    """An array of the metadata, left in the file: ``count`` entries of ``type`` in ``nbytes`` bytes from ``offset``."""

    path: Path
    key: str
    type: int
    count: int
    offset: int
    nbytes: int

    def read(self) -> list[str] | list[int] | list[float] | list[bool]:
        """The entries. Raises :class:`ModelFileError` where a string is no UTF-8 or the file has changed meanwhile."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            raw = file.read(self.nbytes)
        if len(raw) != self.nbytes:
            refuse(self.path, f"{self.key} needs {self.nbytes} bytes, {len(raw)} are left: the file has changed")
        if self.type != STRING:
            return list(struct.unpack(f"<{self.count}{SCALARS[self.type][0]}", raw))
        return self._strings(raw)

    def _strings(self, raw: bytes) -> list[str]:
        found = []
        position, unpack = 0, _LENGTH.unpack_from
        try:
            for _ in range(self.count):
                start = position + 8
                position = start + unpack(raw, position)[0]
                found.append(raw[start:position].decode())
        except UnicodeDecodeError as error:
            refuse(self.path, f"entry {len(found)} of {self.key} is no UTF-8 ({error})")
        return found


class Cursor:
    """A position in the mapped file; every read is checked against what is left before anything is made of it."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data = path, data
        self.position, self.size = 0, len(data)
        self._strings = 0

    def number(self, letter: str, size: int, what: str) -> int | float | bool:
        """One number of struct's ``letter``, little-endian."""
        self.need(size, what)
        value: int | float | bool = struct.unpack_from("<" + letter, self.data, self.position)[0]
        self.position += size
        return value

    def whole(self, what: str, *, bits: int = 64) -> int:
        """An unsigned integer."""
        return int(self.number("Q" if bits == 64 else "I", bits // 8, what))

    def text(self, what: str, most: int) -> str:
        """A string of at most ``most`` bytes."""
        length = self.whole(f"the length of {what}")
        if length > most:
            refuse(self.path, f"{what} is {length} bytes long; at most {most} are read")
        self.need(length, what)
        raw = self.data[self.position : self.position + length]
        self.position += length
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            refuse(self.path, f"{what} is no UTF-8 ({error})")

    def array(self, key: str) -> Values:
        """An array, passed over: its extent is checked, its entries are not made."""
        kind, count = self.whole(f"the type of {key}", bits=32), self.whole(f"the count of {key}")
        start = self.position
        if kind == STRING:
            self._pass_strings(key, count)
        elif kind in SCALARS:
            self.need(count * SCALARS[kind][1], f"{count} entries of {key}")
            self.position += count * SCALARS[kind][1]
        else:
            known = "numbers and strings are read" if kind == ARRAY else "0 to 8 and 10 to 12 are known"
            refuse(self.path, f"{key} is an array of type {kind}; {known}")
        return Values(self.path, key, kind, count, start, self.position - start)

    def need(self, count: int, what: str) -> None:
        """Refuse where fewer than ``count`` bytes are left."""
        left = self.size - self.position
        if count > left:
            refuse(self.path, f"the file is truncated or damaged: {what} needs {count} bytes, {left} are left")

    def _pass_strings(self, key: str, count: int) -> None:
        self.need(8 * count, f"{count} strings of {key}")
        self._strings += count
        if self._strings > MOST_STRINGS:
            refuse(self.path, f"{key} makes {self._strings} strings in all; at most {MOST_STRINGS} are read")
        position, last, unpack, data = self.position, self.size - 8, _LENGTH.unpack_from, self.data
        for index in range(count):
            if position > last:
                refuse(self.path, f"the file is truncated or damaged: entry {index} of {key} begins beyond its {self.size} bytes")
            position += 8 + unpack(data, position)[0]
        self.position = min(position, self.size)
        if position > self.size:
            refuse(self.path, f"the file is truncated or damaged: {key} ends at byte {position}, the file at {self.size}")


def refuse(path: Path, problem: str) -> NoReturn:
    """The error for a file that cannot be read."""
    raise ModelFileError(f"{path}: {problem}.", fix="download the file again")
