"""Rounding to the block types that the gguf package only reads: to nearest, scales from the largest, written from the block layouts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Blocks = np.ndarray
_TABLE = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), dtype=np.float32)


def _halves(values: np.ndarray) -> np.ndarray:
    """float16 [n] → bytes [n, 2]."""
    return np.ascontiguousarray(values.astype(np.float16)).view(np.uint8).reshape(-1, 2)


def _divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.divide(values, by, out=np.zeros_like(values), where=by != 0)


def _fields(values: np.ndarray, width: int, bits: int) -> np.ndarray:
    """[n, elements] → bytes: runs of ``width`` elements share the bytes of a run, the first in the lowest bits."""
    count = 8 // bits
    runs = values.astype(np.uint8).reshape(len(values), -1, count, width)
    packed = np.zeros((len(values), runs.shape[1], width), dtype=np.uint8)
    for place in range(count):
        packed |= runs[:, :, place] << (place * bits)
    return packed.reshape(len(values), -1)


def _two_levels(blocks: Blocks, groups: int, top: int, most: int) -> tuple[np.ndarray, ...]:
    """Codes [n, 256] of 0…top, 6- or 4-bit scales and leasts [n, groups] of 0…most, and their float16 factors [n]."""
    parts = blocks.reshape(len(blocks), groups, -1)
    least = np.minimum(parts.min(2), 0)
    scale = (np.maximum(parts.max(2), 0) - least) / top
    d, dmin = ((each.max(1) / most).astype(np.float16).astype(np.float32) for each in (scale, -least))
    scales = np.clip(np.round(_divided(scale, d[:, None] + 0 * scale)), 0, most)
    leasts = np.clip(np.round(_divided(-least, dmin[:, None] + 0 * least)), 0, most)
    wide = parts + (dmin[:, None] * leasts)[..., None]
    codes = np.clip(np.round(_divided(wide, (d[:, None] * scales)[..., None] + 0 * wide)), 0, top)
    return codes.reshape(len(blocks), 256), scales.astype(np.uint8), leasts.astype(np.uint8), d, dmin


def _twelve(scales: np.ndarray, leasts: np.ndarray) -> np.ndarray:
    """Eight scales and leasts of 6 bits in 12 bytes."""
    first = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    second = leasts[:, :4] | (leasts[:, 4:] >> 4) << 6
    third = (scales[:, 4:] & 15) | (leasts[:, 4:] & 15) << 4
    return np.concatenate((first, second, third), 1)


def q2_k(blocks: Blocks) -> np.ndarray:
    """16 groups of 2 bits."""
    codes, scales, leasts, d, dmin = _two_levels(blocks, 16, 3, 15)
    return np.concatenate((scales | leasts << 4, _fields(codes, 32, 2), _halves(d), _halves(dmin)), 1)


def q4_k(blocks: Blocks) -> np.ndarray:
    """8 groups of 4 bits."""
    codes, scales, leasts, d, dmin = _two_levels(blocks, 8, 15, 63)
    return np.concatenate((_halves(d), _halves(dmin), _twelve(scales, leasts), _fields(codes, 32, 4)), 1)


def q5_k(blocks: Blocks) -> np.ndarray:
    """8 groups of 5 bits."""
    codes, scales, leasts, d, dmin = _two_levels(blocks, 8, 31, 63)
    bytes_ = codes.astype(np.uint8)
    head = (_halves(d), _halves(dmin), _twelve(scales, leasts))
    return np.concatenate((*head, _fields(bytes_ >> 4, 32, 1), _fields(bytes_ & 15, 32, 4)), 1)


def _signed(blocks: Blocks, top: int, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes [n, 256] of -top - 1…top, signed scales [n, 16] of up to ``most``, and their float16 factor [n]."""
    parts = blocks.reshape(len(blocks), 16, 16)
    largest = np.take_along_axis(parts, np.abs(parts).argmax(2)[..., None], 2)[..., 0]
    # The largest becomes the one code more that negative numbers have.
    scale = largest / -(top + 1)
    d = (np.abs(scale).max(1) / most).astype(np.float16).astype(np.float32)
    scales = np.clip(np.round(_divided(scale, d[:, None] + 0 * scale)), -most - 1, most)
    codes = np.clip(np.round(_divided(parts, (d[:, None] * scales)[..., None] + 0 * parts)), -top - 1, top)
    return codes.reshape(len(blocks), 256), scales, d


def q3_k(blocks: Blocks) -> np.ndarray:
    """16 groups of 3 bits."""
    codes, scales, d = _signed(blocks, 3, 31)
    values, stored = (codes + 4).astype(np.uint8), (scales + 32).astype(np.uint8)
    low = (stored[:, :8] & 15) | (stored[:, 8:] & 15) << 4
    return np.concatenate((_fields(values >> 2, 32, 1), _fields(values & 3, 32, 2), low, _fields(stored >> 4, 4, 2), _halves(d)), 1)


def q6_k(blocks: Blocks) -> np.ndarray:
    """16 groups of 6 bits."""
    codes, scales, d = _signed(blocks, 31, 127)
    values = (codes + 32).astype(np.uint8)
    small = scales.astype(np.int8).view(np.uint8)
    return np.concatenate((_fields(values & 15, 64, 4), _fields(values >> 4, 32, 2), small, _halves(d)), 1)


def iq4_nl(blocks: Blocks) -> np.ndarray:
    """32: the nearest of a table's entries."""
    d = (np.abs(blocks).max(1) / 127).astype(np.float16)
    ratio = _divided(blocks, d.astype(np.float32)[:, None] + 0 * blocks)
    codes = np.abs(ratio[..., None] - _TABLE).argmin(-1)
    return np.concatenate((_halves(d), _fields(codes, 16, 4)), 1)


ENCODERS: dict[str, tuple[int, Callable[[Blocks], np.ndarray]]] = {
    "Q2_K": (256, q2_k), "Q3_K": (256, q3_k), "Q4_K": (256, q4_k), "Q5_K": (256, q5_k), "Q6_K": (256, q6_k), "IQ4_NL": (32, iq4_nl),
}  # fmt: skip


def encode(kind: str, weight: np.ndarray) -> np.ndarray:
    """float32 [rows, inputs] → raw rows."""
    elements, encoder = ENCODERS[kind]
    return encoder(weight.reshape(-1, elements).astype(np.float32)).reshape(len(weight), -1)
