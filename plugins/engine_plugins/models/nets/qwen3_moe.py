"""The network of Qwen3's mixtures of experts (arXiv 2505.09388)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.layers.decoder import PreNormBlock, RotaryAttention, RotaryDecoder
from engine.layers.mlp import GatedMLP
from engine.layers.moe import ExpertNames, SparseMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models.qwen3_moe import Qwen3MoeConfig


class Qwen3Moe(RotaryDecoder):
    """Qwen3's attention and mixtures of experts, with a plain feed-forward in layers that say so."""

    def __init__(self, context: ModelContext, config: Qwen3MoeConfig) -> None:
        hidden, bias = config.hidden_size, config.attention_bias
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps)

        def mlp(index: int) -> SparseMLP | GatedMLP:
            name, act = f"model.layers.{index}.mlp", config.hidden_act
            if not config.sparse[index]:
                return GatedMLP(context, name, hidden, config.intermediate_size, act)
            return SparseMLP(
                context, name, ExpertNames("gate_proj", "up_proj", "down_proj"), hidden=hidden,
                inner=config.moe_intermediate_size, experts=config.num_experts, top_k=config.num_experts_per_tok,
                act=act, renormalize=config.norm_topk_prob,
            )  # fmt: skip

        def block(index: int) -> PreNormBlock:
            attention = RotaryAttention(context, index, hidden, bias=bias, output_bias=bias, norm=norm)
            return PreNormBlock(context, index, hidden, attention, mlp(index), norm)

        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.rope, block=block, norm=norm)
