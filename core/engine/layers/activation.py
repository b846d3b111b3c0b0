"""Activation functions by the names that config.json uses."""

from __future__ import annotations

from torch import Tensor

from engine.errors import ModelFileError
from engine.plugin.contracts.model import ModelContext

_NAMES = {
    "silu": "silu", "swish": "silu", "relu": "relu", "relu2": "relu2", "gelu": "gelu", "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "gelu_quick", "tanh": "tanh",
    "sigmoid": "sigmoid",
}  # fmt: skip


class Activation:
    """The function that config.json calls ``name``; raises :class:`ModelFileError` with the known names."""

    def __init__(self, context: ModelContext, name: str) -> None:
        if name not in _NAMES:
            raise ModelFileError(f"config.json asks for the activation {name!r}; known are {', '.join(sorted(_NAMES))}.")
        self.ops = context.ops
        self.name = _NAMES[name]

    def __call__(self, x: Tensor) -> Tensor:
        """Of every element."""
        return self.ops.activate(x, self.name)

    def gate(self, x: Tensor) -> Tensor:
        """[rows, 2n] of gate and up → [rows, n]: f(gate) · up."""
        return self.ops.gate(x, self.name)
