"""A layer's codes, codebooks and scales as AQLM keeps them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.layers.packed_quantized import AdditiveCodebooks
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._tensors import check, require

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class AqlmFormat(WeightFormat):
    """``codes`` int8 or int16 [N / tall, K / wide, books], read modulo 2^bits; ``codebooks`` [books, 2^bits, tall, wide];
    ``scales`` [N / tall, 1, 1, 1]."""

    def __init__(self, wide: int, tall: int, books: int, bits: int) -> None:
        self.wide, self.tall, self.books, self.bits = wide, tall, books, bits

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Codes and scales are cut for tensor-parallel ranks, codebooks are whole on each."""
        return (
            CheckpointTensor("codes", 0, 1, self.tall, self.wide),
            CheckpointTensor("codebooks"),
            CheckpointTensor("scales", 0, None, self.tall),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        tall, groups = -(-layer.outputs // self.tall), -(-layer.inputs // self.wide)
        kind = torch.int8 if self.bits <= 8 else torch.int16
        codes = check(layer, "codes", require(layer, tensors, "codes"), (tall, groups, self.books), (kind,))
        shape = (self.books, 1 << self.bits, self.tall, self.wide)
        books = check(layer, "codebooks", require(layer, tensors, "codebooks"), shape, _FLOATS)
        scales = check(layer, "scales", require(layer, tensors, "scales"), (tall, 1, 1, 1), _FLOATS)
        unsigned = codes.view(torch.uint8) if kind == torch.int8 else codes
        if self.bits not in (8, 16):
            unsigned = unsigned & ((1 << self.bits) - 1)
        return AdditiveCodebooks(unsigned, books, scales.reshape(-1), exclusive=True)
