"""The Mixtral network (arXiv 2401.04088)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from engine.layers.attention import Attention
from engine.layers.linear import QKVParallelLinear, RowParallelLinear
from engine.layers.loading import NameRules
from engine.layers.model import NativeModel
from engine.layers.moe import ExpertNames, SparseMLP
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding, Rotation, rotate

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.mixtral import MixtralConfig


class MixtralAttention(nn.Module):
    """Rotary grouped-query attention."""

    def __init__(self, context: ModelContext, config: MixtralConfig, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}.self_attn"
        heads = config.heads
        self.qkv = QKVParallelLinear(
            context, f"{name}.qkv_proj", (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"), config.hidden_size,
            num_heads=heads.queries, num_kv_heads=heads.kv, head_dim=heads.dim,
        )  # fmt: skip
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(context, f"{name}.o_proj", heads.queries * heads.dim, config.hidden_size, unit=heads.dim)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        q, k, v = self.attention.heads(*self.qkv.project(x, batch.adapters))
        mixed = self.attention(rotate(q, rotation), rotate(k, rotation), v, batch)
        return self.output(mixed, batch.adapters)  # type: ignore[no-any-return]


class MixtralBlock(nn.Module):
    """Attention and a mixture of experts, each on a normalised residual stream."""

    def __init__(self, context: ModelContext, config: MixtralConfig, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}"
        self.add = context.ops.add
        self.attention_norm = RMSNorm(context, f"{name}.input_layernorm", config.hidden_size, config.rms_norm_eps)
        self.attention = MixtralAttention(context, config, index)
        self.mlp_norm = RMSNorm(context, f"{name}.post_attention_layernorm", config.hidden_size, config.rms_norm_eps)
        self.mlp = SparseMLP(
            context, f"{name}.block_sparse_moe", ExpertNames("w1", "w3", "w2"),
            hidden=config.hidden_size, inner=config.intermediate_size, experts=config.num_local_experts,
            top_k=config.num_experts_per_tok, act=config.hidden_act, renormalize=True,
        )  # fmt: skip

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        x = self.add(x, self.attention(self.attention_norm(x), batch, rotation))
        return self.add(x, self.mlp(self.mlp_norm(x), batch.adapters))


class Mixtral(NativeModel):
    """Embedding, blocks, norm, head."""

    recordable = False
    # Later releases name the mixture ``mlp`` and keep its experts in one tensor.
    names = NameRules(base_prefix="model.", renames=((r"\.mlp\.(gate\.|experts\.)", r".block_sparse_moe.\1"),))

    def __init__(self, context: ModelContext, config: MixtralConfig) -> None:
        super().__init__(context)
        self.build_ends("model.embed_tokens", "lm_head", config.hidden_size, config.vocab_size)
        self.rotary = RotaryEmbedding(config.rope, context.longest, context.device, context.ops)
        self.blocks = nn.ModuleList(MixtralBlock(context, config, index) for index in self.layers)
        self.norm = RMSNorm(context, "model.norm", config.hidden_size, config.rms_norm_eps) if self.last else None

    def forward(self, batch: Batch) -> Tensor:
        x = self.enter(batch)
        rotation = self.rotary(batch.positions, x.dtype)
        for block in self.blocks:
            x = block(x, batch, rotation)
        return x if self.norm is None else self.norm(x)
