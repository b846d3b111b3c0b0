"""What argument structs of native operations say of tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine_devices._native import ELEMENT_TYPES


def element_type(dtype: torch.dtype) -> int:
    """``engine_type`` of a dtype."""
    return ELEMENT_TYPES[str(dtype).removeprefix("torch.")]


def address(tensor: Tensor | None) -> int | None:
    """Where its elements begin; None is the null pointer."""
    return None if tensor is None else tensor.data_ptr()


def rounded(value: float, dtype: torch.dtype) -> float:
    """A finite value as that dtype holds it. Without torch, whose operations would end the recording of a step."""
    if dtype == torch.bfloat16:
        bits = int(np.float32(value).view(np.uint32))
        return float(np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32))
    return float(np.float16(value) if dtype == torch.float16 else np.float32(value))
