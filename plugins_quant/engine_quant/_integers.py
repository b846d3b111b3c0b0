"""Integers as formats pack them into words: unpacking, zero points, act-order; all become GroupedInteger."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.layers.packed_quantized import GroupedInteger, Permuted
from engine.plugin import LinearShape, PackedWeight

from ._tensors import damaged

#: Scales as producers write them.
SCALES = (torch.float16, torch.bfloat16, torch.float32)
#: Inputs to whose multiple a group is filled up where a rank holds an odd part of it: what device kernels take.
FILL = 32


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """int32 [n · bits / 32, columns] → uint8 [n, columns]: the words of a column are one stream, low bits first.

    ``bits`` that do not divide 32 run on from one word into the next; the words must then be whole multiples of ``bits``.
    """
    mask = (1 << bits) - 1
    span = 1 if 32 % bits == 0 else bits
    rows = words.view(-1, span, words.shape[1])
    values = torch.empty((len(rows), 32 * span // bits, words.shape[1]), dtype=torch.uint8, device=words.device)
    for index in range(values.shape[1]):
        word, offset = divmod(index * bits, 32)
        value = (rows[:, word] >> offset) & (mask if offset + bits <= 32 else (1 << (32 - offset)) - 1)
        if offset + bits > 32:
            value = (value | (rows[:, word + 1] << (32 - offset))) & mask
        values[:, index] = value.to(torch.uint8)
    return values.view(-1, words.shape[1])


def unpack_columns(words: Tensor, bits: int, order: Sequence[int]) -> Tensor:
    """int32 [rows, n · bits / 32] → uint8 [n, rows], transposed: field p of a word is its column ``order[p]``."""
    mask = (1 << bits) - 1
    count = 32 // bits
    turned = words.t()
    values = torch.empty((len(turned), count, words.shape[0]), dtype=torch.uint8, device=words.device)
    for field, column in enumerate(order):
        values[:, column] = ((turned >> (field * bits)) & mask).to(torch.uint8)
    return values.view(-1, words.shape[0])


def signed(codes: Tensor, bits: int) -> Tensor:
    """Unsigned codes (uint8) less 2^(bits-1): int8."""
    return (codes ^ 128).view(torch.int8) if bits == 8 else codes.view(torch.int8) - (1 << (bits - 1))


def grouped(codes: Tensor, scale: Tensor, zeros: Tensor | None, *, bits: int, group: int, exact: bool = False) -> GroupedInteger:
    """scale[o, g] · (code[o, i] - zero[o, g]) from uint8 codes [outputs, inputs]; no zeros: they are 2^(bits-1).

    Zeros that are all 2^(bits-1) cost nothing in memory. The shift is float32: scale · zero is not exact in fewer bits.
    """
    middle = 1 << (bits - 1)
    codes = codes.contiguous()
    shift = None
    if zeros is not None and not bool((zeros == middle).all()):
        shift = scale.float() * (middle - zeros.float())
    return GroupedInteger.of(signed(codes, bits), scale.contiguous(), shift, bits=bits, group=group, exact=exact)


def grouped_by_index(
    layer: LinearShape, codes: Tensor, scale: Tensor, zeros: Tensor | None, index: Tensor, *, bits: int, group: int
) -> PackedWeight:  # fmt: skip
    """As :func:`grouped`, where ``index`` (int [inputs]) says which group each input belongs to (act-order).

    ``group``: the inputs of a group in the whole layer. A tensor-parallel rank holds some inputs of every group: groups that are
    not whole are filled up with columns that meet no activation.
    """
    index = index.long()
    groups = scale.shape[1]
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < groups:
        raise damaged(layer, "g_idx", f"names group {int(index.max())} or {int(index.min())}", f"0 to {groups - 1}")
    counts = torch.bincount(index, minlength=groups)
    order = torch.argsort(index, stable=True)
    unit = group if bool((counts % group == 0).all()) else min(FILL, group)
    numbers = torch.arange(groups, device=index.device).repeat_interleave(-(-counts // unit))
    scale = scale[:, numbers]
    zeros = None if zeros is None else zeros[:, numbers]
    if len(numbers) * unit == len(order) and bool((order[1:] > order[:-1]).all()):
        return grouped(codes, scale, zeros, bits=bits, group=unit)
    places = _filled(order, counts, unit)
    filling = places < 0
    inner = codes[:, places.clamp(min=0)].masked_fill_(filling, 1 << (bits - 1)) if bool(filling.any()) else codes[:, places]
    return Permuted(grouped(inner, scale, zeros, bits=bits, group=unit), places)


def _filled(order: Tensor, counts: Tensor, unit: int) -> Tensor:
    """The order with -1 after each group whose count is no multiple of ``unit``."""
    padded = -(-counts // unit) * unit
    starts = torch.cumsum(padded, 0) - padded
    firsts = torch.cumsum(counts, 0) - counts
    within = torch.arange(len(order), device=order.device) - firsts.repeat_interleave(counts)
    places = torch.full((int(padded.sum()),), -1, dtype=torch.int64, device=order.device)
    places[starts.repeat_interleave(counts) + within] = order
    return places
