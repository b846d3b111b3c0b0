"""The Mixtral network (arXiv 2401.04088)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.layers.decoder import PreNormBlock, RotaryAttention, RotaryDecoder
from engine.layers.loading import NameRules
from engine.layers.moe import ExpertNames, SparseMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models.mixtral import MixtralConfig


class Mixtral(RotaryDecoder):
    """Rotary grouped-query attention and a mixture of experts in every layer."""

    # Later releases name the mixture ``mlp`` and keep its experts in one tensor.
    names = NameRules(
        base_prefix="model.",
        renames=(
            (r"\.mlp\.(gate\.|experts\.)", r".block_sparse_moe.\1"),
            # as transformers calls an expert's matrices today; what quantizes its classes may write them so
            (r"(\.experts\.\d+)\.gate_proj\.", r"\1.w1."), (r"(\.experts\.\d+)\.up_proj\.", r"\1.w3."),
            (r"(\.experts\.\d+)\.down_proj\.", r"\1.w2."),
        ),
    )  # fmt: skip

    def __init__(self, context: ModelContext, config: MixtralConfig) -> None:
        hidden = config.hidden_size
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps)

        def block(index: int) -> PreNormBlock:
            mixture = SparseMLP(
                context, f"model.layers.{index}.block_sparse_moe", ExpertNames("w1", "w3", "w2"),
                hidden=hidden, inner=config.intermediate_size, experts=config.num_local_experts,
                top_k=config.num_experts_per_tok, act=config.hidden_act, renormalize=True,
            )  # fmt: skip
            return PreNormBlock(context, index, hidden, RotaryAttention(context, index, hidden), mixture, norm)

        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.rope, block=block, norm=norm)
