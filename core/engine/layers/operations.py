"""The operations of layers in plain torch: the truth that a device's own are compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from engine.plugin.contracts.operations import Operations

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "gelu_quick": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "relu2": lambda x: functional.relu(x).square(),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class TorchOperations(Operations):
    """Torch on any device."""

    def embed(self, ids: Tensor, weight: Tensor, *, offset: int = 0, scale: float | None = None) -> Tensor:
        """See the contract."""
        rows = functional.embedding(ids + offset if offset else ids, weight)
        return rows if scale is None else rows * rows.new_tensor(scale)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
        """See the contract."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        if offset:
            return (wide * (weight.float() + offset)).to(x.dtype)
        return weight * wide.to(x.dtype)

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """See the contract."""
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """See the contract."""
        return x + y

    def activate(self, x: Tensor, name: str) -> Tensor:
        """See the contract."""
        return _FUNCTIONS[name](x)

    def gate(self, x: Tensor, name: str) -> Tensor:
        """See the contract."""
        left, right = x.chunk(2, dim=-1)
        return _FUNCTIONS[name](left) * right

    def soft_cap(self, x: Tensor, cap: float) -> Tensor:
        """See the contract."""
        return torch.tanh(x / cap) * cap

    def rotation(self, positions: Tensor, frequencies: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """See the contract."""
        angles = positions.float().unsqueeze(-1) * frequencies
        return (angles.cos() * scale).to(dtype).unsqueeze(1), (angles.sin() * scale).to(dtype).unsqueeze(1)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
        """See the contract."""
        half = cos.shape[-1]
        head, rest = x[..., : 2 * half], x[..., 2 * half :]
        if interleaved:
            a, b = head[..., ::2], head[..., 1::2]
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        else:
            a, b = head[..., :half], head[..., half:]
            turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned

    def best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See the contract."""
        return logits.amax(-1).float(), logits.argmax(-1)
