"""Bytes that a checkpoint's tensors take once they are packed, for the plan: from headers alone. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import gcd, prod

from engine.plugin import TensorInfo

_BLOCK = re.compile(r"\.\d+\.")
_ROUTER = re.compile(r"\.(gate|router|shared_expert_gate)(\.weight)?$")
_EXPERTS = re.compile(r"\.experts\.(\d+\.|gate_up_proj$|down_proj$)")
#: Dtypes of weights that are not quantized.
PLAIN = ("float64", "float32", "float16", "bfloat16")


def is_plain_linear(tensor: TensorInfo) -> bool:
    """Whether a tensor is the weight of a linear layer in a block that stands in 16 or 32 bits: no embedding, head, norm or router."""
    matrix = tensor.dtype in PLAIN and len(tensor.shape) > 1 and min(tensor.shape) > 1
    return matrix and _BLOCK.search(f".{tensor.name}") is not None and _ROUTER.search(tensor.name) is None


def is_expert(tensor: TensorInfo) -> bool:
    """Whether it belongs to one of several experts, or to all of them."""
    return _EXPERTS.search(tensor.name) is not None


def rounded(tensor: TensorInfo, bits: int, run: int = 0) -> int | None:
    """What a plain linear weight becomes: values of ``bits`` with a float32 per ``run`` elements of the flattened weight; 0: per output.

    None for other tensors. Where a run goes over a row's end, scales are repeated for what divides both.
    """
    if not is_plain_linear(tensor):
        return None
    count, inputs = prod(tensor.shape), tensor.shape[-1]
    return count * bits // 8 + 4 * (count // (gcd(run, inputs) if run else inputs))


def scaled(tensor: TensorInfo, factors: Mapping[str, float]) -> int | None:
    """Bytes of a packed checkpoint's tensor: as stored, times the factor of its suffix; None for a plain one.

    Scales keep the dtype in which they stand, whatever the activations' is.
    """
    for suffix, factor in factors.items():
        if tensor.name.endswith(f".{suffix}"):
            return round(tensor.nbytes * factor)
    return None


def numbers(tensor: TensorInfo, size: int) -> int:
    """Bytes of the tensor's elements in ``size`` bytes each."""
    return prod(tensor.shape) * size


def float8(tensor: TensorInfo, block: tuple[int, int] = (0, 0), size: int = 4) -> int | None:
    """A layer in 8-bit floats: its ``weight`` with a scale of ``size`` bytes per output and columns of a block. None for other tensors.

    ``block``: outputs and inputs under a scale of the checkpoint, 0 for all; the checkpoint's scales are contained.
    """
    if tensor.name.endswith(".weight") and tensor.dtype.startswith("float8") and len(tensor.shape) == 2:
        outputs, inputs = tensor.shape
        return tensor.nbytes + size * outputs * -(-inputs // (block[1] or inputs))
    return 0 if tensor.name.endswith((".weight_scale", ".weight_scale_inv", ".input_scale", ".activation_scale")) else None
