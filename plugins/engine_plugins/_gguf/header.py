"""The header of a GGUF file (versions 2 and 3), checked before any tensor is used (format: ggml's docs/gguf.md)."""

from __future__ import annotations

import mmap
import stat
from pathlib import Path
from typing import NamedTuple

from .cursor import ARRAY, BOOL, SCALARS, STRING, Cursor, Values, refuse
from .types import TYPES, TensorType

Value = int | float | bool | str | Values
_VERSIONS = (2, 3)
#: The largest of each that is read: keys, tensors, bytes of a key, of a tensor's name and of a text.
_KEYS, _TENSORS, _KEY, _NAME, _TEXT = 65_536, 200_000, 65_535, 1024, 16_000_000
#: Bytes that a key with its value, and a tensor's entry, have at least.
_LEAST_KEY, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
_ALIGNMENT = "general.alignment"


class TensorEntry(NamedTuple):
    """A tensor as the header states it. ``shape`` is in torch's order (the file's is reversed); ``offset`` is that in the file."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    path: Path

    @property
    def rows(self) -> int:
        """How many rows of blocks there are."""
        count = 1
        for extent in self.shape[:-1]:
            count *= extent
        return count


class Header(NamedTuple):
    """Metadata by key, and tensors by name in the order of their bytes."""

    path: Path
    metadata: dict[str, Value]
    tensors: dict[str, TensorEntry]


def read_header(path: Path) -> Header:
    """Raises :class:`engine.errors.ModelFileError` naming file, key or tensor, and what was expected against what is there."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            refuse(path, "this is not a regular file")
        if status.st_size < 24:
            refuse(path, f"the file is truncated: a header has at least 24 bytes, {status.st_size} found")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(Cursor(path, data))
    except OSError as error:
        refuse(path, str(error.strerror or error))


def _read(at: Cursor) -> Header:
    tensors, keys = _counts(at)
    metadata: dict[str, Value] = {}
    for index in range(keys):
        key = at.text(f"key {index} of {keys}", _KEY)
        if key in metadata:
            refuse(at.path, f"the key {key!r} is there twice")
        metadata[key] = _value(at, key)
    alignment = _alignment(at.path, metadata)
    entries = [_tensor(at, index, tensors) for index in range(tensors)]
    return Header(at.path, metadata, _placed(at, entries, alignment))


def _counts(at: Cursor) -> tuple[int, int]:
    """How many tensors and keys there are."""
    magic = at.data[:4]
    if magic != b"GGUF":
        refuse(at.path, f"the file begins with {magic!r} where b'GGUF' was expected")
    at.position = 4
    version = at.whole("the version", bits=32)
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        hint = " (a big-endian file)" if swapped in _VERSIONS else ""
        refuse(at.path, f"GGUF version {version}{hint}; {' and '.join(map(str, _VERSIONS))} are read, little-endian")
    tensors, keys = at.whole("the number of tensors"), at.whole("the number of keys")
    left = at.size - at.position
    for what, count, least, most in (("tensors", tensors, _LEAST_TENSOR, _TENSORS), ("keys", keys, _LEAST_KEY, _KEYS)):
        if count > most or count * least > left:
            refuse(at.path, f"the header counts {count} {what}; {min(most, left // least)} at most fit into the {left} bytes that follow")
    return tensors, keys


def _value(at: Cursor, key: str) -> Value:
    kind = at.whole(f"the type of {key}", bits=32)
    if kind == STRING:
        return at.text(key, _TEXT)
    if kind == ARRAY:
        return at.array(key)
    if kind not in SCALARS:
        refuse(at.path, f"{key} has the value type {kind}; 0 to 12 are known")
    if kind == BOOL and at.position < at.size and at.data[at.position] > 1:
        refuse(at.path, f"{key} is a truth value of {at.data[at.position]}; 0 or 1 was expected")
    return at.number(*SCALARS[kind], key)


def _alignment(path: Path, metadata: dict[str, Value]) -> int:
    value = metadata.get(_ALIGNMENT, 32)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65_536 or value & (value - 1):
        refuse(path, f"{_ALIGNMENT} is {value!r:.100}; a power of two up to 65536 was expected")
    return value


def _tensor(at: Cursor, index: int, count: int) -> TensorEntry:
    """An entry of the header; its offset still counts from the data's beginning."""
    name = at.text(f"the name of tensor {index} of {count}", _NAME)
    dims = at.whole(f"the dimensions of tensor {name!r}", bits=32)
    if not 1 <= dims <= 4:
        refuse(at.path, f"tensor {name!r} has {dims} dimensions; 1 to 4 were expected")
    shape = tuple(at.whole(f"the shape of tensor {name!r}") for _ in range(dims))[::-1]
    number, offset = at.whole(f"the type of tensor {name!r}", bits=32), at.whole(f"the offset of tensor {name!r}")
    if number not in TYPES:
        names = ", ".join(kind.name for kind in TYPES.values())
        refuse(at.path, f"tensor {name!r} has the type {number}, which is unknown; known are {names}")
    elements = 1
    for extent in shape:
        elements *= extent
    if not 0 < elements < 2**56:
        refuse(at.path, f"tensor {name!r} has the shape {list(shape)}, which holds {elements} elements; 1 to 2^56 were expected")
    kind = TYPES[number]
    if shape[-1] % kind.elements:
        refuse(at.path, f"tensor {name!r} ({kind.name}) has rows of {shape[-1]}; a multiple of {kind.elements} was expected")
    return TensorEntry(name, kind, shape, offset, elements // kind.elements * kind.nbytes, at.path)


def _placed(at: Cursor, entries: list[TensorEntry], alignment: int) -> dict[str, TensorEntry]:
    """The tensors in the order of their bytes, none twice, none over another, all inside the file."""
    start = -(-at.position // alignment) * alignment
    end, last = start, ""
    found: dict[str, TensorEntry] = {}
    for entry in sorted(entries, key=lambda each: each.offset):
        begin = start + entry.offset
        if entry.offset % alignment:
            refuse(at.path, f"tensor {entry.name!r} begins at byte {entry.offset} of the data; a multiple of {alignment} was expected")
        if begin < end:
            refuse(at.path, f"tensor {entry.name!r} begins at byte {begin}, inside the tensor {last!r}, which ends at {end}")
        end, last = begin + entry.nbytes, entry.name
        if end > at.size:
            shape = f"{entry.type.name} {list(entry.shape)}"
            refuse(at.path, f"tensor {last!r} ({shape}) ends at byte {end}, but the file has {at.size}: it is truncated or damaged")
        if entry.name in found:
            refuse(at.path, f"the tensor {entry.name!r} is there twice")
        found[entry.name] = entry._replace(offset=begin)
    return found
