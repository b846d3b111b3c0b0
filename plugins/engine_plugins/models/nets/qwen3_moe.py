"""The Qwen3-MoE network (arXiv 2505.09388)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from engine.layers.attention import Attention
from engine.layers.linear import QKVParallelLinear, RowParallelLinear
from engine.layers.mlp import GatedMLP
from engine.layers.model import NativeModel
from engine.layers.moe import ExpertNames, SparseMLP
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding, Rotation, rotate

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.qwen3_moe import Qwen3MoeConfig


class Qwen3MoeAttention(nn.Module):
    """Rotary grouped-query attention on queries and keys normalised per head."""

    def __init__(self, context: ModelContext, config: Qwen3MoeConfig, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}.self_attn"
        heads = config.heads
        self.qkv = QKVParallelLinear(
            context, f"{name}.qkv_proj", (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"), config.hidden_size,
            num_heads=heads.queries, num_kv_heads=heads.kv, head_dim=heads.dim, bias=config.attention_bias,
        )  # fmt: skip
        self.q_norm = RMSNorm(context, f"{name}.q_norm", heads.dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(context, f"{name}.k_norm", heads.dim, config.rms_norm_eps)
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(
            context,
            f"{name}.o_proj",
            heads.queries * heads.dim,
            config.hidden_size,
            bias=config.attention_bias,
            unit=heads.dim,
        )

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        q, k, v = self.attention.heads(*self.qkv.project(x, batch.adapters))
        mixed = self.attention(rotate(self.q_norm(q), rotation), rotate(self.k_norm(k), rotation), v, batch)
        return self.output(mixed, batch.adapters)  # type: ignore[no-any-return]


class Qwen3MoeBlock(nn.Module):
    """Attention and a mixture of experts (a plain feed-forward in layers that say so), each on a normalised residual stream."""

    def __init__(self, context: ModelContext, config: Qwen3MoeConfig, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}"
        self.add = context.ops.add
        self.attention_norm = RMSNorm(context, f"{name}.input_layernorm", config.hidden_size, config.rms_norm_eps)
        self.attention = Qwen3MoeAttention(context, config, index)
        self.mlp_norm = RMSNorm(context, f"{name}.post_attention_layernorm", config.hidden_size, config.rms_norm_eps)
        hidden, act = config.hidden_size, config.hidden_act
        self.mlp: SparseMLP | GatedMLP
        if config.sparse[index]:
            self.mlp = SparseMLP(
                context, f"{name}.mlp", ExpertNames("gate_proj", "up_proj", "down_proj"), hidden=hidden,
                inner=config.moe_intermediate_size, experts=config.num_experts, top_k=config.num_experts_per_tok,
                act=act, renormalize=config.norm_topk_prob,
            )  # fmt: skip
        else:
            self.mlp = GatedMLP(context, f"{name}.mlp", hidden, config.intermediate_size, act)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        x = self.add(x, self.attention(self.attention_norm(x), batch, rotation))
        return self.add(x, self.mlp(self.mlp_norm(x), batch.adapters))


class Qwen3Moe(NativeModel):
    """Embedding, blocks, norm, head."""

    recordable = False

    def __init__(self, context: ModelContext, config: Qwen3MoeConfig) -> None:
        super().__init__(context)
        self.build_ends("model.embed_tokens", "lm_head", config.hidden_size, config.vocab_size)
        self.rotary = RotaryEmbedding(config.rope, context.longest, context.device, context.ops)
        self.blocks = nn.ModuleList(Qwen3MoeBlock(context, config, index) for index in self.layers)
        self.norm = RMSNorm(context, "model.norm", config.hidden_size, config.rms_norm_eps) if self.last else None

    def forward(self, batch: Batch) -> Tensor:
        x = self.enter(batch)
        rotation = self.rotary(batch.positions, x.dtype)
        for block in self.blocks:
            x = block(x, batch, rotation)
        return x if self.norm is None else self.norm(x)
