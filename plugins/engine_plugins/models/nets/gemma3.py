"""The Gemma 3 text network (arXiv 2503.19786)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from engine.layers.attention import Attention
from engine.layers.linear import QKVParallelLinear, RowParallelLinear
from engine.layers.loading import NameRules
from engine.layers.mlp import GatedMLP
from engine.layers.model import NativeModel
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding, Rotation, rotate

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.gemma3 import Gemma3Config


class Gemma3Attention(nn.Module):
    """Rotary grouped-query attention on normalised queries and keys; scale and window are the layer's spec."""

    def __init__(self, context: ModelContext, config: Gemma3Config, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}.self_attn"
        heads, hidden, bias = config.heads, config.hidden_size, config.attention_bias
        self.qkv = QKVParallelLinear(
            context, f"{name}.qkv_proj", (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"), hidden,
            num_heads=heads.queries, num_kv_heads=heads.kv, head_dim=heads.dim, bias=bias,
        )  # fmt: skip
        self.q_norm = RMSNorm(context, f"{name}.q_norm", heads.dim, config.rms_norm_eps, offset=1.0)
        self.k_norm = RMSNorm(context, f"{name}.k_norm", heads.dim, config.rms_norm_eps, offset=1.0)
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(context, f"{name}.o_proj", heads.queries * heads.dim, hidden, bias=bias, unit=heads.dim)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        q, k, v = self.attention.heads(*self.qkv.project(x, batch.adapters))
        mixed = self.attention(rotate(self.q_norm(q), rotation), rotate(self.k_norm(k), rotation), v, batch)
        return self.output(mixed, batch.adapters)  # type: ignore[no-any-return]


class Gemma3Block(nn.Module):
    """Attention and feed-forward, each between two norms."""

    def __init__(self, context: ModelContext, config: Gemma3Config, index: int) -> None:
        super().__init__()
        name = f"model.layers.{index}"
        self.add = context.ops.add

        def norm(which: str) -> RMSNorm:
            return RMSNorm(context, f"{name}.{which}_layernorm", config.hidden_size, config.rms_norm_eps, offset=1.0)

        self.before_attention = norm("input")
        self.attention = Gemma3Attention(context, config, index)
        self.after_attention = norm("post_attention")
        self.before_mlp = norm("pre_feedforward")
        self.mlp = GatedMLP(context, f"{name}.mlp", config.hidden_size, config.intermediate_size, config.hidden_activation)
        self.after_mlp = norm("post_feedforward")

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        x = self.add(x, self.after_attention(self.attention(self.before_attention(x), batch, rotation)))
        return self.add(x, self.after_mlp(self.mlp(self.before_mlp(x), batch.adapters)))


class Gemma3(NativeModel):
    """Scaled embedding, blocks, norm, capped head."""

    def __init__(self, context: ModelContext, config: Gemma3Config) -> None:
        super().__init__(context)
        self.cap = config.final_logit_softcapping
        # Gemma was trained with the scale rounded to the activations' dtype.
        self.build_ends("model.embed_tokens", "lm_head", config.hidden_size, config.vocab_size, scale=config.hidden_size**0.5)
        self.full_rotary = RotaryEmbedding(config.full_rope, context.longest, context.device, context.ops)
        self.sliding_rotary = RotaryEmbedding(config.sliding_rope, context.longest, context.device, context.ops)
        self.sliding = [config.sliding[index] for index in self.layers]
        self.blocks = nn.ModuleList(Gemma3Block(context, config, index) for index in self.layers)
        final = RMSNorm(context, "model.norm", config.hidden_size, config.rms_norm_eps, offset=1.0)
        self.norm = final if self.last else None

    def forward(self, batch: Batch) -> Tensor:
        x = self.enter(batch)
        full = self.full_rotary(batch.positions, x.dtype)
        sliding = self.sliding_rotary(batch.positions, x.dtype)
        for block, slides in zip(self.blocks, self.sliding, strict=True):
            x = block(x, batch, sliding if slides else full)
        return x if self.norm is None else self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        return logits if self.cap is None else self.context.ops.soft_cap(logits, self.cap)


class Gemma3InTower(Gemma3):
    """The text network of a checkpoint that holds a vision tower beside it, in the older and the newer spelling."""

    names = NameRules(
        renames=((r"^language_model\.", ""), (r"^model\.language_model\.", "model.")),
        leftovers=(r"(model\.)?(vision_tower|multi_modal_projector)\..*", r".*\.rotary_emb\.inv_freq"),
    )
