"""Tensor types of GGUF (format: ggml's docs/gguf.md): number, name, elements and bytes of a block."""

from __future__ import annotations

from typing import NamedTuple


class TensorType(NamedTuple):
    """``elements`` weights in ``nbytes`` bytes. ``plain``: torch's name, for types that are numbers and not blocks."""

    name: str
    elements: int
    nbytes: int
    plain: str | None = None


#: By their number in the file. Types that ggml has removed or uses only while it computes are left out.
TYPES: dict[int, TensorType] = {
    0: TensorType("F32", 1, 4, "float32"), 1: TensorType("F16", 1, 2, "float16"), 30: TensorType("BF16", 1, 2, "bfloat16"),
    28: TensorType("F64", 1, 8, "float64"), 24: TensorType("I8", 1, 1, "int8"), 25: TensorType("I16", 1, 2, "int16"),
    26: TensorType("I32", 1, 4, "int32"), 27: TensorType("I64", 1, 8, "int64"),
    2: TensorType("Q4_0", 32, 18), 3: TensorType("Q4_1", 32, 20), 6: TensorType("Q5_0", 32, 22), 7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34), 10: TensorType("Q2_K", 256, 84), 11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144), 13: TensorType("Q5_K", 256, 176), 14: TensorType("Q6_K", 256, 210),
    16: TensorType("IQ2_XXS", 256, 66), 17: TensorType("IQ2_XS", 256, 74), 18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50), 20: TensorType("IQ4_NL", 32, 18), 21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82), 23: TensorType("IQ4_XS", 256, 136), 29: TensorType("IQ1_M", 256, 56),
    34: TensorType("TQ1_0", 256, 54), 35: TensorType("TQ2_0", 256, 66), 39: TensorType("MXFP4", 32, 17),
}  # fmt: skip
