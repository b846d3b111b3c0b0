"""The GPT-NeoX network (arXiv 2204.06745)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from engine.layers.activation import Activation
from engine.layers.attention import Attention
from engine.layers.linear import ColumnParallelLinear, RowParallelLinear
from engine.layers.loading import NameRules
from engine.layers.model import NativeModel
from engine.layers.norm import LayerNorm
from engine.layers.rotary import RotaryEmbedding, Rotation, rotate
from engine.layers.wanted import wanted_adapters, wanted_rotation, wanted_rows, with_batches

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.gpt_neox import GPTNeoXConfig


class GPTNeoXBlock(nn.Module):
    """Attention and feed-forward, side by side on the same input or one after the other."""

    selects = True

    def __init__(self, context: ModelContext, config: GPTNeoXConfig, index: int) -> None:
        super().__init__()
        name = f"gpt_neox.layers.{index}"
        self.ops = context.ops
        hidden, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        dim, bias = config.heads.dim, config.attention_bias
        self.parallel = config.use_parallel_residual
        self.attention_norm = LayerNorm(context, f"{name}.input_layernorm", hidden, eps)
        # The fused rows are ordered by head, then q, k, v: a head's three parts stay on one rank.
        self.qkv = ColumnParallelLinear(context, f"{name}.attention.query_key_value", hidden, 3 * hidden, bias=bias, unit=3 * dim)
        self.dim = dim
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(context, f"{name}.attention.dense", hidden, hidden, bias=bias, unit=dim)
        self.mlp_norm = LayerNorm(context, f"{name}.post_attention_layernorm", hidden, eps)
        self.up = ColumnParallelLinear(context, f"{name}.mlp.dense_h_to_4h", hidden, inner, bias=True)
        self.down = RowParallelLinear(context, f"{name}.mlp.dense_4h_to_h", inner, hidden, bias=True)
        self.act = Activation(context, config.hidden_act)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        add, mixed = self.ops.add, self.attend(self.attention_norm(x), batch, rotation)
        x = wanted_rows(x, batch, self.ops)
        if self.parallel:
            return add(add(self.feed(self.mlp_norm(x), batch), mixed), x)
        x = add(mixed, x)
        return add(self.feed(self.mlp_norm(x), batch), x)

    def attend(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        """The attention branch, of the wanted rows."""
        q, k, v = self.qkv(x, batch.adapters).view(len(x), -1, 3 * self.dim).chunk(3, dim=-1)
        q = rotate(wanted_rows(q, batch, self.ops), wanted_rotation(rotation, batch))
        return self.output(self.attention(q, rotate(k, rotation), v, batch), wanted_adapters(batch))  # type: ignore[no-any-return]

    def feed(self, x: Tensor, batch: Batch) -> Tensor:
        """The feed-forward branch, of the wanted rows."""
        adapters = wanted_adapters(batch)
        return self.down(self.act(self.up(x, adapters)), adapters)  # type: ignore[no-any-return]


class GPTNeoX(NativeModel):
    """Embedding, blocks, norm, head."""

    names = NameRules(base_prefix="gpt_neox.", leftovers=(r".*\.attention\.(masked_)?bias", r".*\.rotary_emb\.inv_freq"))
    layer_prefix = "gpt_neox.layers."
    end_prefixes = ("gpt_neox.embed_in.", "gpt_neox.final_layer_norm.", "embed_out.")

    def __init__(self, context: ModelContext, config: GPTNeoXConfig) -> None:
        super().__init__(context)
        self.build_ends("gpt_neox.embed_in", "embed_out", config.hidden_size, config.vocab_size)
        self.rotary = RotaryEmbedding(config.rope, context.longest, context.device, context.ops)
        self.blocks = nn.ModuleList(GPTNeoXBlock(context, config, index) for index in self.layers)
        self.norm = None
        if self.last:
            self.norm = LayerNorm(context, "gpt_neox.final_layer_norm", config.hidden_size, config.layer_norm_eps)
        self.select_in(self.blocks)

    def forward(self, batch: Batch) -> Tensor:
        x = self.enter(batch)
        rotation = self.rotary(batch.positions, x.dtype)
        for block, seen in with_batches(self.blocks, batch):
            x = block(x, seen, rotation)
        return x if self.norm is None else self.norm(x)
