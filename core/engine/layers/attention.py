"""The attention layer: a model's heads on the paged cache."""

from __future__ import annotations

from torch import Tensor, nn

from engine.plugin.contracts.model import Batch, ModelContext


class Attention(nn.Module):
    """Causal attention of layer ``index`` over its pages, on this rank's heads. Owns no parameters."""

    def __init__(self, context: ModelContext, index: int) -> None:
        super().__init__()
        self.index = index
        self.spec = context.info.layers[index].sharded(context.parallel.size)
        self.backend = context.attention

    def heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, heads · head_dim] each → [T, heads, head_dim]."""
        size = self.spec.head_dim
        return q.view(len(q), -1, size), k.view(len(k), -1, size), v.view(len(v), -1, size)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, batch: Batch, sinks: Tensor | None = None) -> Tensor:
        """q [T, heads, head_dim], k and v [T, kv_heads, head_dim] with positions applied → [T, heads · head_dim]."""
        out = self.backend.attend(q, k, v, batch.caches[self.index], batch.attention, self.spec, sinks)
        return out.flatten(-2)
