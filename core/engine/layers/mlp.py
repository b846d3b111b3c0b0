"""The gated feed-forward block that most decoders share."""

from __future__ import annotations

from torch import Tensor, nn

from engine.layers.activation import Activation
from engine.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from engine.plugin.contracts.model import AdapterBatch, ModelContext


class GatedMLP(nn.Module):
    """down(f(gate x) · up x). ``fused``: the checkpoint holds gate and up as one ``gate_up_proj``."""

    def __init__(
        self,
        context: ModelContext,
        name: str,
        hidden: int,
        inner: int,
        act: str,
        *,
        bias: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__()
        parts = () if fused else (f"{name}.gate_proj", f"{name}.up_proj")
        self.gate_up = MergedColumnParallelLinear(context, f"{name}.gate_up_proj", parts, hidden, (inner, inner), bias=bias)
        self.down = RowParallelLinear(context, f"{name}.down_proj", inner, hidden, bias=bias)
        self.act = Activation(context, act)

    def forward(self, x: Tensor, adapters: AdapterBatch | None = None) -> Tensor:
        """[T, hidden] → [T, hidden]."""
        return self.down(self.act.gate(self.gate_up(x, adapters)), adapters)  # type: ignore[no-any-return]
