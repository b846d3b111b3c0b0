"""Packers of Marlin, Marlin-24 and QQQ, written from their descriptions with loops, independently of the readers that they test."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.quant.checkpoints import Quantized
from tests.quant.packers import dense_of, in_groups


def pack_tiles(codes: np.ndarray, bits: int, order: list[int]) -> Tensor:
    """Codes [rows, columns] → int32 words [rows / 16, columns · 16 · bits / 32]: tiles side by side, each run of 1024 in that order."""
    rows, columns = codes.shape
    lines = []
    for top in range(0, rows, 16):
        line = np.concatenate([codes[top : top + 16, left : left + 16].reshape(-1) for left in range(0, columns, 16)])
        line = np.concatenate([line[start : start + 1024][order] for start in range(0, len(line), 1024)])
        fields = line.reshape(-1, 32 // bits).astype(np.uint64)
        words = np.zeros(len(fields), dtype=np.uint64)
        for place in range(32 // bits):
            words |= fields[:, place] << np.uint64(place * bits)
        lines.append(words.astype(np.uint32))
    return torch.from_numpy(np.stack(lines).view(np.int32).copy())


def order_of(kind: str, bits: int = 4, grouped: bool = True) -> list[int]:
    """The permutation of a run: ``marlin``, ``24`` or ``qqq``."""
    step = 1 if kind == "24" else 256
    places = []
    for i in range(32):
        c = i // 4
        rows = [2 * (i % 4), 2 * (i % 4) + 1, 2 * (i % 4) + 8, 2 * (i % 4) + 9]
        if kind == "qqq":
            rows = [4 * (i % 4) + k for k in range(4)]
        for times in range(4):
            for b in (0, 1):
                for r in rows:
                    places.append(16 * r + (256 * (c // 2) + 8 * (c % 2) + 4 * b if kind == "24" else c + 8 * b) + step * times)
    fields = [0, 2, 4, 6, 1, 3, 5, 7] if bits == 4 else [0, 2, 1, 3]
    if kind == "qqq" and not grouped:
        fields = [4, 0, 5, 1, 6, 2, 7, 3]
    return [places[start + field] for start in range(0, len(places), len(fields)) for field in fields]


def pack_scales(scales: np.ndarray, order: list[int]) -> Tensor:
    """[groups, columns], each run of columns in that order."""
    runs = [scales[:, start : start + len(order)][:, order] for start in range(0, scales.shape[1], len(order))]
    return torch.from_numpy(np.concatenate(runs, 1).copy())


GROUPED = [i + 8 * j for i in range(8) for j in range(8)]
COLUMNS = [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]
GROUPED_24 = [8 * i + j for i in range(8) for j in (0, 4, 1, 5, 2, 6, 3, 7)]


def marlin(weight: Tensor, group: int = 128) -> Quantized:
    """B and s, and a scratch tensor as some checkpoints have it."""
    outputs, inputs = weight.shape
    whole = group < 0
    members = np.arange(inputs) // (inputs if whole else group)
    codes, scales, zeros = in_groups(weight, members, members[-1] + 1, 4, symmetric=True)
    tensors = {
        "B": pack_tiles(codes.T, 4, order_of("marlin")), "s": pack_scales(scales.T, COLUMNS if whole else GROUPED),
        "workspace": torch.zeros(outputs // 128 * 16, dtype=torch.int32),
    }  # fmt: skip
    return tensors, dense_of(codes, scales, zeros, members)


def marlin_24(weight: Tensor, bits: int = 4, group: int = 128) -> Quantized:
    """B_24, B_meta and s of the two largest of every four inputs."""
    outputs, inputs = weight.shape
    whole = group < 0
    members = np.arange(inputs) // (inputs if whole else group)
    dense = weight.numpy().reshape(outputs, -1, 4)
    keep = np.sort(np.argsort(-np.abs(dense), axis=2, kind="stable")[:, :, :2], axis=2)
    mask = np.zeros(dense.shape, dtype=bool)
    np.put_along_axis(mask, keep, True, 2)
    pruned = torch.from_numpy(np.where(mask, dense, 0).reshape(outputs, inputs))
    codes, scales, zeros = in_groups(pruned, members, members[-1] + 1, bits, symmetric=True)
    kept = np.take_along_axis(codes.reshape(dense.shape), keep, 2).reshape(outputs, inputs // 2)
    pairs = (keep[:, :, 0] | (keep[:, :, 1] << 2)).reshape(outputs, -1, 4)
    words = sum(pairs[:, :, field] << (4 * field) for field in range(4)).astype(np.uint16)
    flat = np.zeros(words.size, dtype=np.uint16)
    for m in range(outputs):
        for k in range(words.shape[1]):
            row = m // 64 * 64 + (m % 2) * 2 + (m % 8) // 4 + ((m % 32) % 4) // 2 * 32 + ((m % 64) // 8) * 4
            column = k
            if row % 2 == 0 and k % 2 == 1:
                row, column = row + 1, k - 1
            elif row % 2 == 1 and k % 2 == 0:
                row, column = row - 1, k + 1
            flat[(column // 2) * outputs * 2 + row * 2 + column % 2] = words[m, k]
    tensors = {
        "B_24": pack_tiles(kept.T, bits, order_of("24", bits)),
        "B_meta": torch.from_numpy(flat.view(np.int16).reshape(inputs // 32, -1).copy()),
        "s": torch.from_numpy(scales.T.copy()) if whole else pack_scales(scales.T, GROUPED_24),
        "workspace": torch.zeros(outputs // 128 * 64, dtype=torch.int32),
    }  # fmt: skip
    return tensors, dense_of(codes, scales, zeros, members)


def qqq(weight: Tensor, group: int = 128) -> Quantized:
    """B, s_channel and s_group."""
    _, inputs = weight.shape
    if group < 0:
        scale = (weight.abs().amax(1).numpy() / 7).astype(np.float32)
        codes = np.clip(np.round(weight.numpy() / scale[:, None]), -8, 7).astype(np.int64)
        tensors = {
            "B": pack_tiles((codes & 15).T, 4, order_of("qqq", grouped=False)), "s_channel": pack_scales(scale[None] / 16, COLUMNS),
            "s_group": torch.zeros(0, dtype=torch.float16),
        }  # fmt: skip
        return tensors, torch.from_numpy(codes * (scale / np.float32(16)).astype(np.float64)[:, None] * 16).float()
    channel = (weight.abs().amax(1).numpy() / 127).astype(np.float32)
    eight = np.clip(np.round(weight.numpy() / channel[:, None]), -127, 127)
    members = np.arange(inputs) // group
    codes, scales, _ = in_groups(torch.from_numpy(eight), members, members[-1] + 1, 4, symmetric=True)
    tensors = {
        "B": pack_tiles(codes.T, 4, order_of("qqq")), "s_channel": pack_scales(channel[None], COLUMNS),
        "s_group": pack_scales(scales.T, GROUPED),
    }  # fmt: skip
    integers = np.clip(np.round((codes - 8) * scales.astype(np.float64)[:, members]), -128, 127)
    return tensors, torch.from_numpy(integers * channel.astype(np.float64)[:, None]).float()
