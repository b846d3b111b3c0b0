"""All canonical quantized layouts under one name: what formats become and devices multiply."""

from __future__ import annotations

from engine.layers.packed_additive import AdditiveCodebooks
from engine.layers.packed_blocks import BlockKind, RowBlocks
from engine.layers.packed_codebook import E2M1, Codebook
from engine.layers.packed_composite import Adapted, Joined, Permuted, RoundedInputs, ScaledInputs
from engine.layers.packed_float8 import ScaledFloat8
from engine.layers.packed_integer import GroupedInteger, pack_nibbles, unpack_nibbles
from engine.layers.packed_shared import SharedScales
from engine.layers.packed_sparse import Sparse24
from engine.layers.rounding import ActivationRounding

__all__ = [
    "E2M1", "ActivationRounding", "Adapted", "AdditiveCodebooks", "BlockKind", "Codebook", "GroupedInteger", "Joined", "Permuted",
    "RoundedInputs", "RowBlocks", "ScaledFloat8", "ScaledInputs", "SharedScales", "Sparse24", "pack_nibbles", "unpack_nibbles",
]  # fmt: skip
