"""One tensor of a file as a mapping of its own, which goes when the tensor does."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin import TensorInfo


def map_tensor(descriptor: int, begin: int, info: TensorInfo) -> Tensor:
    """The tensor whose bytes begin at ``begin`` of an open file. Raises :class:`ValueError` where the file has become shorter.

    A mapping of the whole file would keep every page that was read in this process until the last tensor is let go; these go one by one.
    Writing to the tensor does not reach the file.
    """
    dtype: torch.dtype = getattr(torch, info.dtype)
    # two elements to a byte: torch counts bytes
    shape = (*info.shape[:-1], info.shape[-1] // 2) if info.dtype.endswith("_x2") else info.shape
    if not info.nbytes:
        return torch.empty(shape, dtype=dtype)
    start = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    mapping = mmap.mmap(descriptor, begin - start + info.nbytes, access=mmap.ACCESS_COPY, offset=start)
    if hasattr(mmap, "MADV_WILLNEED"):
        mapping.madvise(mmap.MADV_WILLNEED)
    raw = torch.frombuffer(mapping, dtype=torch.uint8, count=info.nbytes, offset=begin - start)
    return raw.view(dtype).reshape(shape)
