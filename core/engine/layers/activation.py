"""Activation functions by the names that config.json uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import ModelFileError

_tanh_gelu = partial(functional.gelu, approximate="tanh")
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "swish": functional.silu,
    "relu": functional.relu,
    "relu2": lambda x: functional.relu(x).square(),
    "gelu": functional.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name; raises :class:`ModelFileError` with the known names."""
    if name not in _FUNCTIONS:
        raise ModelFileError(f"config.json asks for the activation {name!r}; known are {', '.join(sorted(_FUNCTIONS))}.")
    return _FUNCTIONS[name]


def gate(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """[rows, 2n] of gate and up → [rows, n]: function(gate) · up."""
    left, right = x.chunk(2, dim=-1)
    return function(left) * right


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(x / cap), or x where there is no cap."""
    return x if cap is None else torch.tanh(x / cap) * cap
