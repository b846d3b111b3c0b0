"""Packers of integer formats, written from their descriptions with NumPy bits, independently of the readers that they test."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.quant.checkpoints import Quantized


def stream(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned values along axis 0 → int32 words along axis 0: one little-endian stream of bits per column."""
    rows, columns = values.shape
    spread = (values.astype(np.uint32)[:, None, :] >> np.arange(bits, dtype=np.uint32)[None, :, None]) & 1
    flat = spread.reshape(rows * bits, columns).astype(np.uint8)
    packed = np.packbits(flat, axis=0, bitorder="little")
    return np.ascontiguousarray(packed.reshape(-1, 4, columns).transpose(0, 2, 1)).view("<i4")[..., 0].copy()


def in_groups(weight: Tensor, members: np.ndarray, count: int, bits: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round to nearest: codes [outputs, inputs], float16 scales and integer zero points [outputs, groups]; ``members`` [inputs]: groups."""
    dense = weight.double().numpy()
    top = (1 << bits) - 1
    codes = np.zeros(dense.shape, dtype=np.int64)
    scales = np.zeros((len(dense), count), dtype=np.float16)
    zeros = np.zeros((len(dense), count), dtype=np.int64)
    for group in range(count):
        part = dense[:, members == group]
        if symmetric:
            scale = (2 * np.abs(part).max(1) / top).astype(np.float16)
            zero = np.full(len(part), 1 << (bits - 1))
        else:
            low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
            scale = ((high - low) / top).astype(np.float16)
            # 0 cannot be stored as zero - 1.
            zero = np.clip(np.round(-low / scale.astype(float)), 1, top).astype(np.int64)
        codes[:, members == group] = np.clip(np.round(part / scale.astype(float)[:, None]) + zero[:, None], 0, top)
        scales[:, group], zeros[:, group] = scale, zero
    return codes, scales, zeros


def dense_of(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, members: np.ndarray) -> Tensor:
    """scale · (code - zero), float32 [outputs, inputs]."""
    exact = scales.astype(np.float64)[:, members] * (codes - zeros[:, members])
    return torch.from_numpy(exact).float()


def gptq(
    weight: Tensor, *, bits: int = 4, group: int = 32, symmetric: bool = True, act_order: bool = False, version: int = 1, index: bool = True
) -> Quantized:
    """GPTQ's four tensors; ``version`` 2 stores zero points themselves. Layers of equal inputs get the same act-order."""
    inputs = weight.shape[1]
    group = inputs if group < 0 else group
    members = np.arange(inputs) // group
    if act_order:
        members = np.random.default_rng(inputs).permutation(members)
    codes, scales, zeros = in_groups(weight, members, inputs // group, bits, symmetric)
    tensors = {
        "qweight": torch.from_numpy(stream(codes.T, bits).copy()),
        "qzeros": torch.from_numpy(stream(zeros - (1 if version == 1 else 0), bits).T.copy()),
        "scales": torch.from_numpy(scales.T.copy()),
    }
    if index:
        tensors["g_idx"] = torch.from_numpy(members.astype(np.int32))
    return tensors, dense_of(codes, scales, zeros, members)


def awq(weight: Tensor, *, bits: int = 4, group: int = 32) -> Quantized:
    """AWQ's gemm layout: words along the outputs, columns shuffled within a word."""
    inputs = weight.shape[1]
    group = inputs if group < 0 else group
    members = np.arange(inputs) // group
    codes, scales, zeros = in_groups(weight, members, inputs // group, bits, symmetric=False)
    order = [0, 2, 4, 6, 1, 3, 5, 7] if bits == 4 else [0, 2, 1, 3]

    def words(values: np.ndarray) -> Tensor:
        """[rows, outputs] → int32 [rows, outputs · bits / 32]."""
        fields = values.reshape(len(values), -1, len(order))[:, :, order].astype(np.uint64)
        joined = (fields << (np.arange(len(order), dtype=np.uint64) * np.uint64(bits))).sum(-1)
        return torch.from_numpy(joined.astype(np.uint32).view(np.int32))

    tensors = {"qweight": words(codes.T), "qzeros": words(zeros.T), "scales": torch.from_numpy(scales.T.copy())}
    return tensors, dense_of(codes, scales, zeros, members)


def hqq(weight: Tensor, *, bits: int = 4, group: int = 64) -> Quantized:
    """HQQ's state: rows are groups, a word's highest field belongs to the first stretch of rows; float16 zero points between codes."""
    outputs, inputs = weight.shape
    rows = weight.double().numpy().reshape(-1, group or inputs)
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    scale = ((high - low) / ((1 << bits) - 1)).astype(np.float16)
    zero = (-low / scale.astype(float)).astype(np.float16)
    codes = np.clip(np.round(rows / scale.astype(float) + zero.astype(float)), 0, (1 << bits) - 1).astype(np.int64)
    fields = {8: 1, 4: 2, 3: 10, 2: 4}[bits]
    steps = -(-len(codes) // fields)
    padded = np.concatenate([codes, np.zeros((steps * fields - len(codes), codes.shape[1]), dtype=np.int64)])
    words = sum(padded[f * steps : (f + 1) * steps] << (bits * (fields - 1 - f)) for f in range(fields))
    tensors = {
        "W_q": torch.from_numpy(words.astype(np.int32 if bits == 3 else np.uint8)), "scale": torch.from_numpy(scale.copy()),
        "zero": torch.from_numpy(zero.copy()), "nbits": torch.tensor([bits]), "shape": torch.tensor([outputs, inputs]),
        "packing": torch.zeros(7, dtype=torch.uint8),
    }  # fmt: skip
    dense = (codes - zero.astype(float)) * scale.astype(float)
    return tensors, torch.from_numpy(dense.reshape(outputs, inputs)).float()


def gemv_fast(weight: Tensor, *, group: int = 32) -> Quantized:
    """AutoAWQ's gemv_fast, which llm-awq made: 64 inputs of four outputs are a run of nibbles, four to an int16."""
    outputs, inputs = weight.shape
    group = inputs if group < 0 else group
    codes, scales, zeros = in_groups(weight, np.arange(inputs) // group, inputs // group, 4, False)
    words = np.zeros((outputs // 4, inputs), dtype=np.uint16)
    for output in range(outputs):
        for column in range(inputs):
            thirty_two, rest = divmod(column % 64, 32)
            a, b, c = rest // 8, rest % 8 // 2, rest % 2
            place = output % 4 * 64 + thirty_two * 32 + 8 * b + 4 * c + a
            words[output // 4, column // 64 * 64 + place // 4] |= np.uint16(codes[output, column] << 4 * (place % 4))
    fill = ((0, 0), (0, -scales.shape[1] % {32: 32, 64: 16}.get(group, 8)))
    scaled = (-(scales.astype(np.float32) * zeros)).astype(np.float16)
    tensors = {
        "qweight": torch.from_numpy(words.view(np.int16)), "scales": torch.from_numpy(np.pad(scales, fill).T.copy()),
        "qzeros": torch.from_numpy(np.pad(scaled, fill).T.copy()),
    }  # fmt: skip
    dense = codes * scales.astype(float).repeat(group, 1) + scaled.astype(float).repeat(group, 1)
    return tensors, torch.from_numpy(dense).float()


def llm_awq(weight: Tensor) -> Quantized:
    """As :func:`gemv_fast`, under llm-awq's names."""
    made, dense = gemv_fast(weight)
    return {"scaled_zeros" if suffix == "qzeros" else suffix: tensor for suffix, tensor in made.items()}, dense


def hqq_outputs(weight: Tensor, *, bits: int = 4, group: int = 64) -> Quantized:
    """HQQ's axis 0: the flattened weight in ``group`` stretches (0: as many as outputs), a column of these is a group."""
    shape = tuple(weight.shape)
    stretches = weight.double().numpy().reshape(group or shape[0], -1)
    low, high = stretches.min(0, keepdims=True), stretches.max(0, keepdims=True)
    scale = ((high - low) / ((1 << bits) - 1)).astype(np.float16)
    zero = (-low / scale.astype(float)).astype(np.float16)
    codes = np.clip(np.round(stretches / scale.astype(float) + zero.astype(float)), 0, (1 << bits) - 1).astype(np.int64)
    fields = {8: 1, 6: 1, 5: 1, 4: 2, 3: 10, 2: 4, 1: 8}[bits]
    steps = -(-len(codes) // fields)
    words = np.zeros((steps, codes.shape[1]), dtype=np.int64)
    for row, values in enumerate(codes):
        words[row % steps] |= values << (bits * (fields - 1 - row // steps))
    tensors = {
        "W_q": torch.from_numpy(words.astype(np.int32 if bits == 3 else np.uint8)), "scale": torch.from_numpy(scale.copy()),
        "zero": torch.from_numpy(zero.copy()), "nbits": torch.tensor([bits]), "axis": torch.tensor([0]),
    }  # fmt: skip
    dense = (codes - zero.astype(float)) * scale.astype(float)
    return tensors, torch.from_numpy(dense.reshape(shape)).float()


def nibbles(fields: np.ndarray, order: list[int]) -> Tensor:
    """[rows, outputs] of 4 bits → int32 [rows, outputs / 8], a word's fields in that order of columns."""
    shuffled = fields.reshape(len(fields), -1, 8)[:, :, order].astype(np.uint64) & np.uint64(15)
    return torch.from_numpy((shuffled << (np.arange(8, dtype=np.uint64) * np.uint64(4))).sum(-1).astype(np.uint32).view(np.int32))


def gemv(weight: Tensor) -> Quantized:
    """AutoAWQ's gemv: words along the inputs; of 4 groups a word has 8 zero points, of groups of 32 there are 4 words at least."""
    members = np.arange(weight.shape[1]) // 32
    codes, scales, zeros = in_groups(weight, members, weight.shape[1] // 32, 4, False)
    dense = dense_of(codes, scales, zeros, members)
    width = -(-zeros.shape[1] // 32) * 32
    fill = ((0, 0), (0, width - zeros.shape[1]))
    plain = list(range(8))
    tensors = {
        "qweight": nibbles(codes, plain), "qzeros": nibbles(np.pad(zeros, fill), plain),
        "scales": torch.from_numpy(np.pad(scales, fill)),
    }  # fmt: skip
    return tensors, dense
