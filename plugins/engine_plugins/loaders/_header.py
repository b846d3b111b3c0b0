"""The header of a safetensors file, checked before anything is mapped (format: the safetensors project's README)."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ModelFileError
from engine.plugin import TensorInfo

HEADER_LIMIT = 100_000_000
_FIX = "download the file again"

#: dtype in the header → (torch's name, bits of one element)
DTYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 64), "F32": ("float32", 32), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "I64": ("int64", 64), "I32": ("int32", 32), "I16": ("int16", 16), "I8": ("int8", 8),
    "U64": ("uint64", 64), "U32": ("uint32", 32), "U16": ("uint16", 16), "U8": ("uint8", 8), "BOOL": ("bool", 8),
    "C64": ("complex64", 64), "F8_E4M3": ("float8_e4m3fn", 8), "F8_E5M2": ("float8_e5m2", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8), "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8), "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F4": ("float4_e2m1fn_x2", 4),
}  # fmt: skip


def read_header(path: Path) -> list[TensorInfo]:
    """Every tensor of one file, in the order of its bytes.

    Raises :class:`ModelFileError` naming file, tensor, and what was expected against what is there.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return parse_header(path, size, file.read)


def parse_header(path: Path | str, size: int, read: Callable[[int], bytes]) -> list[TensorInfo]:
    """As :func:`read_header`, of any file of ``size`` bytes: ``read`` gives its next so many bytes from the beginning."""
    header, start = _header(path, size, read)
    entries = []
    for name, value in header.items():
        if name != "__metadata__":
            info, begin = _tensor(path, name, value)
            entries.append((begin, info))
        elif not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            _refuse(path, "__metadata__ is not an object of strings")
    entries.sort(key=lambda entry: (entry[0], entry[1].nbytes))
    end = 0
    for begin, info in entries:
        if begin != end:
            where = "overlaps the tensor before it" if begin < end else "leaves a gap"
            _refuse(path, f"tensor {info.name!r} begins at byte {begin} of the data and {where}, which ends at {end}")
        end = begin + info.nbytes
    if end != size - start:
        state = "truncated" if end > size - start else "longer than its header says"
        last = f" (last tensor: {entries[-1][1].name!r})" if entries else ""
        _refuse(path, f"the file is {state}: {start + end} bytes expected, {size} found{last}")
    return [info for _, info in entries]


def _header(path: Path | str, size: int, read: Callable[[int], bytes]) -> tuple[dict[str, Any], int]:
    """The header's JSON object, and where the data begins."""
    if size < 8:
        _refuse(path, f"the file is truncated: at least 8 bytes expected, {size} found")
    (length,) = struct.unpack("<Q", read(8))
    if length > size - 8:
        _refuse(path, f"the header says it is {length} bytes long, but only {size - 8} follow")
    if length > HEADER_LIMIT:
        _refuse(path, f"the header is {length} bytes long; at most {HEADER_LIMIT} are read")
    raw = read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except _Twice as error:
        _refuse(path, f"the header names {error.args[0]!r} twice")
    except (ValueError, RecursionError) as error:
        _refuse(path, f"the header is not valid JSON ({type(error).__name__}: {error})")
    if not isinstance(header, dict):
        _refuse(path, f"the header is not a JSON object but {type(header).__name__}")
    return header, 8 + length


def _tensor(path: Path | str, name: str, value: Any) -> tuple[TensorInfo, int]:
    """One entry of the header, and the byte it begins at."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"tensor {name!r}: dtype, shape and data_offsets expected, found {value!r:.100}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        _refuse(path, f"tensor {name!r} has the dtype {dtype!r}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(_natural(extent) for extent in shape):
        _refuse(path, f"tensor {name!r} has the shape {shape!r:.100}, which is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_natural, offsets)) or offsets[0] > offsets[1]:
        _refuse(path, f"tensor {name!r} has the data_offsets {offsets!r:.100}, which are not [begin, end]")
    torch_name, bits = DTYPES[dtype]
    elements = 1
    for extent in shape:
        elements *= extent
    expected, found = elements * bits // 8, offsets[1] - offsets[0]
    if expected != found or elements * bits % 8:
        _refuse(path, f"tensor {name!r} ({dtype} {shape}) needs {expected} bytes, its data_offsets give {found}")
    return TensorInfo(name, torch_name, tuple(shape), found, str(path)), offsets[0]


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


class _Twice(Exception):
    """A name that occurs twice in one JSON object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _refuse(path: Path | str, problem: str) -> NoReturn:
    raise ModelFileError(f"{path}: {problem}.", fix=_FIX)
