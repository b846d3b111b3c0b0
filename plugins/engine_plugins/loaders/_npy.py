"""The header of a .npy file, checked before anything is mapped (format: NumPy enhancement proposal 1)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ModelFileError

_MAGIC = b"\x93NUMPY"
_LIMIT = 65_535
_FIELD = re.compile(
    r"""\s{0,9}['"](descr|fortran_order|shape)['"]\s{0,9}:\s{0,9}"""
    r"""(?:['"]([^'"\\]{0,60})['"]|(True|False)|\(([\d ,]{0,1000})\))\s{0,9},?"""
)
_DTYPES = {
    "<f8": ("float64", 8), "<f4": ("float32", 4), "<f2": ("float16", 2), "<i8": ("int64", 8), "<i4": ("int32", 4),
    "<i2": ("int16", 2), "|i1": ("int8", 1), "|u1": ("uint8", 1), "<u2": ("uint16", 2), "<u4": ("uint32", 4), "<u8": ("uint64", 8),
    "|b1": ("bool", 1),
}  # fmt: skip


@dataclass(frozen=True)
class ArrayHeader:
    """``start``: the byte at which the elements begin. ``fortran``: the first axis varies fastest."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int
    fortran: bool


def read_npy_header(file: Path) -> ArrayHeader:
    """Raises :class:`ModelFileError` naming the file and what was expected."""
    if not file.is_file():
        _refuse(file, "it is missing, or no regular file")
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(12)
        if len(head) < 10 or head[:6] != _MAGIC or head[6] not in (1, 2, 3):
            _refuse(file, "it does not begin as a .npy file of version 1 to 3 does")
        wide = head[6] > 1
        (length,) = struct.unpack("<I", head[8:12].ljust(4, b"\0")) if wide else struct.unpack("<H", head[8:10])
        start = (12 if wide else 10) + length
        if length > _LIMIT or start > size:
            _refuse(file, f"the header says it is {length} bytes long; at most {min(_LIMIT, size)} are there or read")
        opened.seek(start - length)
        raw = opened.read(length)
    return _read(file, size, start, _fields(file, raw))


def _fields(file: Path, raw: bytes) -> dict[str, Any]:
    """The header's dictionary, of exactly the values that NumPy writes; nothing else of Python is understood."""
    text = raw.decode("latin-1").strip()
    found: dict[str, Any] = {}
    position = 1
    while text[:1] == "{" and (match := _FIELD.match(text, position)):
        name, word, flag, sizes = match.groups()
        if word is None and flag is None:
            found[name] = tuple(int(size) for size in sizes.replace(" ", "").split(",") if len(size) < 20 and size)
        else:
            found[name] = word if flag is None else flag == "True"
        position = match.end()
    if text[position:].strip() != "}":
        _refuse(file, f"the header is {text!r:.100}, not one of an array of numbers")
    return found


def _read(file: Path, size: int, start: int, fields: Any) -> ArrayHeader:
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        _refuse(file, "the header does not have exactly descr, fortran_order and shape")
    descr, shape = fields["descr"], fields["shape"]
    if not isinstance(descr, str) or descr not in _DTYPES:
        _refuse(file, f"the elements are {descr!r:.60}; known are {', '.join(_DTYPES)}")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in shape):
        _refuse(file, f"the shape is {shape!r:.100}, which is not a tuple of sizes")
    dtype, width = _DTYPES[descr]
    nbytes = width
    for extent in shape:
        nbytes *= extent
    if nbytes != size - start:
        _refuse(file, f"{nbytes} bytes expected for {dtype} {list(shape)}, {size - start} found")
    return ArrayHeader(dtype, shape, nbytes, start, bool(fields["fortran_order"]) and len(shape) > 1)


def _refuse(file: Path, problem: str) -> NoReturn:
    raise ModelFileError(f"{file}: {problem}.", fix=f"remove {file.parent}, it is made again")
