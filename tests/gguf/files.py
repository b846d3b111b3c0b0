"""GGUF files put together byte by byte: whole ones, and damaged ones that no writer would write."""

from __future__ import annotations

import struct
from pathlib import Path

TYPES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "arr": 9, "u64": 10, "i64": 11, "f64": 12}
LETTERS = dict(zip(TYPES, "BbHhIif?__Qqd", strict=True))


def text(value: str | bytes, length: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def number(kind: str, value: float) -> bytes:
    return struct.pack("<" + LETTERS[kind], value)


def entry(key: str | bytes, kind: str, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", TYPES[kind]) + value


def array(kind: int, count: int, data: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + data


def tensor(name: str | bytes, dims: tuple[int, ...], kind: int, offset: int, *, count: int | None = None) -> bytes:
    """``dims`` in the file's order, the row length first."""
    raw = text(name) + struct.pack("<I", len(dims) if count is None else count)
    return raw + b"".join(struct.pack("<Q", dim) for dim in dims) + struct.pack("<IQ", kind, offset)


def build(
    keys: list[bytes], tensors: list[bytes], data: bytes = b"", *, version: int = 3, magic: bytes = b"GGUF",
    counts: tuple[int, int] | None = None, alignment: int = 32,
) -> bytes:  # fmt: skip
    tensor_count, key_count = counts or (len(tensors), len(keys))
    head = magic + struct.pack("<IQQ", version, tensor_count, key_count) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment) + data


def sound() -> bytes:
    """A small file with every kind of value and three tensors."""
    numbers = b"".join(struct.pack("<i", value) for value in range(5))
    words = b"".join(text(word) for word in ("a", "", "Grüße"))
    keys = [
        entry("general.architecture", "str", text("llama")), entry("llama.block_count", "u32", number("u32", 1)),
        entry("a.bool", "bool", b"\1"), entry("a.f32", "f32", number("f32", 0.5)), entry("a.i8", "i8", number("i8", -3)),
        entry("a.u64", "u64", number("u64", 2**63)), entry("a.f64", "f64", number("f64", 1e-9)),
        entry("a.numbers", "arr", array(5, 5, numbers)), entry("a.words", "arr", array(8, 3, words)),
    ]  # fmt: skip
    tensors = [tensor("x", (4,), 0, 0), tensor("y", (32, 2), 2, 32), tensor("z", (2, 3), 1, 96)]
    return build(keys, tensors, b"\0" * 16 + b"\0" * 16 + bytes(range(36)) + b"\0" * 28 + b"\0" * 12)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
