"""The attention layer: a model's heads on the paged cache."""

from __future__ import annotations

import msgspec
from torch import Tensor, nn

from engine.plugin.contracts.model import Batch, ModelContext

#: What max|k| and max|v| of the first step become, far enough below 448 that later values fit.
_KEYS, _VALUES = 200.0, 100.0


class Attention(nn.Module):
    """Causal attention of layer ``index`` over its pages, on this rank's heads. Owns no parameters.

    ``calibrates``: the next step sets the scales of the cache from its keys and values.
    """

    def __init__(self, context: ModelContext, index: int) -> None:
        super().__init__()
        self.index = index
        self.spec = context.info.layers[index].sharded(context.parallel.size)
        self.backend = context.attention
        self.calibrates = False

    def heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, heads · head_dim] each → [T, heads, head_dim]."""
        size = self.spec.head_dim
        q, k, v = (x.view(len(x), x.shape[1] // size, size) for x in (q, k, v))
        return q, k, v

    def forward(self, q: Tensor, k: Tensor, v: Tensor, batch: Batch, sinks: Tensor | None = None) -> Tensor:
        """q [T, heads, head_dim], k and v [T, kv_heads, head_dim] with positions applied → [T, heads · head_dim].

        Of a batch with ``wanted`` q, and what comes out, are the wanted rows.
        """
        if self.calibrates:
            self.calibrates = False
            self.scale(_largest(k) / _KEYS, _largest(v) / _VALUES)
        cache, wanted = batch.caches[self.index], batch.wanted
        if wanted is None:
            return self.backend.attend(q, k, v, cache, batch.attention, self.spec, sinks).flatten(-2)
        return self.backend.attend(q, k, v, cache, batch.attention, self.spec, sinks, wanted.attention).flatten(-2)

    def scale(self, k_scale: float, v_scale: float) -> None:
        """Set what keys and values are divided by in the cache; before anything is stored. 0 and what is not finite become 1."""
        usable = [scale if 0 < scale < float("inf") else 1.0 for scale in (k_scale, v_scale)]
        self.spec = msgspec.structs.replace(self.spec, k_scale=usable[0], v_scale=usable[1])


def _largest(x: Tensor) -> float:
    return float(x.abs().amax().float()) if x.numel() else 0.0
