"""Which outputs and inputs of a layer a tensor-parallel rank holds, and how tensors are cut accordingly."""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor

from engine.errors import ConfigError, ModelFileError
from engine.plugin.contracts.model import Parallel


class Piece(NamedTuple):
    """Outputs [start, start + size) of a checkpoint part, which this rank holds."""

    start: int
    size: int


class Part(NamedTuple):
    """One checkpoint prefix of a layer: how many outputs it has in all, and which of them this rank holds, in the order it holds them."""

    name: str
    outputs: int
    pieces: tuple[Piece, ...]


def shard(size: int, parallel: Parallel, what: str) -> Piece:
    """This rank's even share of ``size``; refuses what cannot be divided."""
    if size % parallel.size:
        raise ConfigError(
            f"--tensor-parallel-size {parallel.size} does not divide {what} ({size}).",
            fix=f"--tensor-parallel-size {_largest_divisor(size, parallel.size)}",
        )
    share = size // parallel.size
    return Piece(parallel.rank * share, share)


def shard_kv_heads(num_kv_heads: int, parallel: Parallel) -> Piece:
    """This rank's KV heads; where there are fewer heads than ranks, neighbouring ranks hold the same one."""
    if num_kv_heads >= parallel.size:
        return shard(num_kv_heads, parallel, "the number of KV heads")
    if parallel.size % num_kv_heads:
        raise ConfigError(
            f"--tensor-parallel-size {parallel.size} is not a multiple of the number of KV heads ({num_kv_heads}).",
            fix=f"--tensor-parallel-size {num_kv_heads}",
        )
    return Piece(parallel.rank * num_kv_heads // parallel.size, 1)


def _largest_divisor(size: int, limit: int) -> int:
    return max(n for n in range(1, limit + 1) if size % n == 0)


def copy_pieces(source: Tensor, pieces: tuple[Piece, ...], target: Tensor, row: int) -> None:
    """Copy a part's pieces into consecutive rows of ``target`` from ``row``."""
    for piece in pieces:
        target.narrow(0, row, piece.size).copy_(source.narrow(0, piece.start, piece.size))
        row += piece.size


def cut(name: str, tensor: Tensor, axis: int, piece: Piece, whole: int, group: int, items: int = 1) -> Tensor:
    """The elements of a packed tensor's axis that cover ``piece`` of ``whole``, ``items`` of them covering ``group``."""
    _check_length(name, tensor, axis, -(-whole // group) * items)
    if piece.size == whole:
        return tensor
    if piece.start % group or (piece.size % group and piece.start + piece.size != whole):
        raise ConfigError(
            f"The quantized tensor {name!r} keeps groups of {group}, which a tensor-parallel shard of {piece.size} would cut.",
            fix="a smaller --tensor-parallel-size",
        )
    return tensor.narrow(axis, piece.start // group * items, -(-piece.size // group) * items)


def _check_length(name: str, tensor: Tensor, axis: int, length: int) -> None:
    if axis >= tensor.dim() or tensor.shape[axis] != length:
        raise ModelFileError(f"Tensor {name!r} has shape {list(tensor.shape)}, but the configuration asks for {length} along axis {axis}.")


def spread(name: str, tensor: Tensor, axis: int, whole: int, group: int, unit: int) -> Tensor:
    """An axis whose elements cover ``group`` of ``whole`` each, repeated so that each covers ``unit``, which divides the group."""
    _check_length(name, tensor, axis, -(-whole // group))
    # Not every small float can be indexed: their bytes can.
    plain = tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
    repeated = plain.repeat_interleave(group // unit, axis).narrow(axis, 0, -(-whole // unit))
    return repeated.view(tensor.dtype)


def common_unit(group: int, parts: tuple[tuple[int, tuple[Piece, ...]], ...]) -> int:
    """The group itself where no piece of a part (its size, its pieces) cuts one, else the largest divisor of it that none cuts."""
    pieces = [(size, piece) for size, each in parts for piece in each]
    if all(piece.start % group == 0 and (piece.size % group == 0 or piece.start + piece.size == size) for size, piece in pieces):
        return group
    return gcd(group, *(number for _, piece in pieces for number in piece))


def fused_parts(name: str, parts: tuple[str, ...], sizes: tuple[int, ...], shares: tuple[Piece, ...]) -> tuple[Part, ...]:
    """The parts of a fused layer: one per prefix, or one alone where the checkpoint holds them fused under ``name``."""
    if parts:
        return tuple(Part(part, size, (share,)) for part, size, share in zip(parts, sizes, shares, strict=True))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    pieces = tuple(Piece(start + share.start, share.size) for start, share in zip(starts, shares, strict=True))
    return (Part(name, sum(sizes), pieces),)
