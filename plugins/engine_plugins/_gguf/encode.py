"""Bytes of a GGUF file's header (version 3; format: ggml's docs/gguf.md)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

#: Alignment of tensors, the format's default.
ALIGNMENT = 32
_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
#: Numbers are written as uint32, float32 or bool; in arrays as int32 or float32.
Entry = int | float | bool | str | Sequence[str] | Sequence[int] | Sequence[float]
_TYPES = {"I": 4, "i": 5, "f": 6, "?": 7}


def encode_header(metadata: Mapping[str, Entry], tensors: Mapping[str, tuple[tuple[int, ...], int, int]]) -> bytes:
    """``tensors``: name → shape in torch's order, type number, offset from the begin of the data. Padded to where the data begins."""
    parts = [_MAGIC, struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(value)]
    for name, (shape, kind, offset) in tensors.items():
        parts += [_text(name), struct.pack("<I", len(shape)), struct.pack(f"<{len(shape)}Q", *reversed(shape))]
        parts.append(struct.pack("<IQ", kind, offset))
    raw = b"".join(parts)
    return raw.ljust(-(-len(raw) // ALIGNMENT) * ALIGNMENT, b"\0")


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Entry) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, int | float):
        letter = _letter(value)
        return struct.pack(f"<I{letter}", _TYPES[letter], value)
    first = value[0] if value else ""
    if isinstance(first, str):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(_text(str(each)) for each in value)
    letter = "i" if isinstance(first, int) else "f"
    return struct.pack(f"<IIQ{len(value)}{letter}", _ARRAY, _TYPES[letter], len(value), *value)


def _letter(value: float) -> str:
    if isinstance(value, bool):
        return "?"
    return "I" if isinstance(value, int) else "f"
