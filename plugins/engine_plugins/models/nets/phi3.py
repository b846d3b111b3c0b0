"""The Phi-3 network (arXiv 2404.14219, 2412.08905)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from engine.layers.attention import Attention
from engine.layers.linear import QKVParallelLinear, RowParallelLinear
from engine.layers.mlp import GatedMLP
from engine.layers.model import NativeModel
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding, Rotation, rotate

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.phi3 import Phi3Config


class Phi3Attention(nn.Module):
    """Rotary grouped-query attention; the checkpoint holds the projections fused."""

    def __init__(self, context: ModelContext, config: Phi3Config, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}.self_attn"
        heads = config.heads
        self.qkv = QKVParallelLinear(
            context, f"{name}.qkv_proj", (), config.hidden_size,
            num_heads=heads.queries, num_kv_heads=heads.kv, head_dim=heads.dim,
        )  # fmt: skip
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(context, f"{name}.o_proj", heads.queries * heads.dim, config.hidden_size, unit=heads.dim)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        q, k, v = self.attention.heads(*self.qkv.project(x, batch.adapters))
        mixed = self.attention(rotate(q, rotation), rotate(k, rotation), v, batch)
        return self.output(mixed, batch.adapters)  # type: ignore[no-any-return]


class Phi3Block(nn.Module):
    """Attention and feed-forward, each on a normalised residual stream."""

    def __init__(self, context: ModelContext, config: Phi3Config, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}"
        self.add = context.ops.add
        self.attention_norm = RMSNorm(context, f"{name}.input_layernorm", config.hidden_size, config.rms_norm_eps)
        self.attention = Phi3Attention(context, config, index)
        self.mlp_norm = RMSNorm(context, f"{name}.post_attention_layernorm", config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMLP(context, f"{name}.mlp", config.hidden_size, config.intermediate_size, config.hidden_act, fused=True)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        x = self.add(x, self.attention(self.attention_norm(x), batch, rotation))
        return self.add(x, self.mlp(self.mlp_norm(x), batch.adapters))


class Phi3(NativeModel):
    """Embedding, blocks, norm, head."""

    def __init__(self, context: ModelContext, config: Phi3Config) -> None:
        super().__init__(context)
        self.build_ends("model.embed_tokens", "lm_head", config.hidden_size, config.vocab_size)
        self.rotary = RotaryEmbedding(config.rope, context.longest, context.device, context.ops)
        self.blocks = nn.ModuleList(Phi3Block(context, config, index) for index in self.layers)
        self.norm = RMSNorm(context, "model.norm", config.hidden_size, config.rms_norm_eps) if self.last else None

    def forward(self, batch: Batch) -> Tensor:
        x = self.enter(batch)
        rotation = self.rotary(batch.positions, x.dtype)
        for block in self.blocks:
            x = block(x, batch, rotation)
        return x if self.norm is None else self.norm(x)
