"""Tensors of a GGUF file as views of the mapped file, put back into the order of the checkpoint they came from."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import torch
from torch import Tensor

from engine_plugins._gguf.cursor import refuse
from engine_plugins._gguf.header import TensorEntry
from engine_plugins._gguf.model import GgufModel, Named, Placed


def mapped(entry: TensorEntry) -> Tensor:
    """The tensor's bytes, mapped for as long as somebody holds them: plain numbers in their shape, blocks as uint8 [..., row bytes]."""
    begin = entry.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    skip = entry.offset - begin
    with entry.path.open("rb") as file:
        try:
            # a private writable mapping, because torch knows no read-only tensors
            memory = mmap.mmap(file.fileno(), skip + entry.nbytes, access=mmap.ACCESS_COPY, offset=begin)
        except (OSError, ValueError) as error:
            refuse(entry.path, f"tensor {entry.name!r} cannot be mapped ({error}): the file has changed")
    data = torch.frombuffer(memory, dtype=torch.uint8, count=entry.nbytes, offset=skip)
    if entry.type.plain is None:
        return data.view(*entry.shape[:-1], entry.shape[-1] // entry.type.elements * entry.type.nbytes)
    dtype = getattr(torch, entry.type.plain)
    aligned = data if skip % dtype.itemsize == 0 else data.clone()
    return aligned.view(dtype).view(entry.shape)


def restored(model: GgufModel, placed: Placed) -> Tensor:
    """The tensor as the checkpoint had it: rotated rows, fused heads, norms and turned matrices put back."""
    family, entry = model.family(), placed.entry
    tensor = mapped(entry)
    own = entry.name.split(".")[-2]
    if family.rotary_pairs and own in ("attn_q", "attn_k"):
        heads = model.head_counts()[own == "attn_k"]
        return tensor.index_select(0, _order(entry, heads, 2).transpose(1, 2).flatten())
    if family.fused_heads and own == "attn_qkv":
        heads, _ = model.head_counts()
        return tensor.index_select(0, _by_part(entry, heads).transpose(0, 1).flatten())
    if family.norm_offset and own.endswith("norm") and placed.kind == "weight":
        return tensor.float() - family.norm_offset
    if family.transposed and entry.name.startswith("blk.") and tensor.dim() == 2 and entry.type.plain is not None:
        return tensor.t()
    return tensor


def _order(entry: TensorEntry, heads: int, pair: int) -> Tensor:
    """Row numbers [heads, half a head, 2]: how a head's rows are stored."""
    rows = entry.shape[0]
    if rows % (heads * pair):
        refuse(entry.path, f"tensor {entry.name!r} has {rows} rows; a multiple of {heads * pair} was expected for {heads} heads")
    return torch.arange(rows).view(heads, -1, pair)


def _by_part(entry: TensorEntry, heads: int) -> Tensor:
    """Row numbers [3, heads, head]: queries, keys and values one after the other."""
    rows = entry.shape[0]
    if rows % (3 * heads):
        refuse(entry.path, f"tensor {entry.name!r} has {rows} rows; a multiple of {3 * heads} was expected for {heads} heads")
    return torch.arange(rows).view(3, heads, -1)


def tensors(model: GgufModel, names: Iterator[Named]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor once; experts are views of their stacked tensor, which is mapped once."""
    stacked: tuple[str, Tensor] | None = None
    for named in names:
        if named.expert is None:
            yield named.name, restored(model, named.placed)
            continue
        entry = named.placed.entry
        if stacked is None or stacked[0] != entry.name:
            stacked = (entry.name, mapped(entry))
        yield named.name, stacked[1][named.expert]
