"""The OPT network (arXiv 2205.01068)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from engine.layers.activation import Activation
from engine.layers.attention import Attention
from engine.layers.embedding import PositionEmbedding
from engine.layers.linear import ColumnParallelLinear, QKVParallelLinear, ReplicatedLinear, RowParallelLinear
from engine.layers.model import NativeModel
from engine.layers.norm import LayerNorm
from engine.layers.wanted import wanted_adapters, wanted_rows, with_batches

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.opt import OPTConfig

#: Rows of the position table before position 0, left over from the padding scheme of training.
POSITION_OFFSET = 2
EPS = 1e-5


class OPTBlock(nn.Module):
    """Attention and feed-forward, normalised before (most sizes) or after (350M) each."""

    selects = True

    def __init__(self, context: ModelContext, config: OPTConfig, index: int) -> None:
        super().__init__()
        name = f"model.decoder.layers.{index}"
        self.ops = context.ops
        heads, hidden, bias = config.heads, config.hidden_size, config.enable_bias
        affine = config.layer_norm_elementwise_affine
        self.before = config.do_layer_norm_before
        self.attention_norm = LayerNorm(context, f"{name}.self_attn_layer_norm", hidden, EPS, affine=affine)
        parts = tuple(f"{name}.self_attn.{part}_proj" for part in "qkv")
        self.qkv = QKVParallelLinear(
            context, f"{name}.self_attn.qkv_proj", parts, hidden,
            num_heads=heads.queries, num_kv_heads=heads.kv, head_dim=heads.dim, bias=bias,
        )  # fmt: skip
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(context, f"{name}.self_attn.out_proj", hidden, hidden, bias=bias, unit=heads.dim)
        self.mlp_norm = LayerNorm(context, f"{name}.final_layer_norm", hidden, EPS, affine=affine)
        self.up = ColumnParallelLinear(context, f"{name}.fc1", hidden, config.ffn_dim, bias=bias)
        self.down = RowParallelLinear(context, f"{name}.fc2", config.ffn_dim, hidden, bias=bias)
        self.act = Activation(context, config.activation_function)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        add, left = self.ops.add, wanted_rows(x, batch, self.ops)
        if self.before:
            x = add(left, self.attend(self.attention_norm(x), batch))
            return add(x, self.feed(self.mlp_norm(x), batch))
        x = self.attention_norm(add(left, self.attend(x, batch)))
        return self.mlp_norm(add(x, self.feed(x, batch)))  # type: ignore[no-any-return]

    def attend(self, x: Tensor, batch: Batch) -> Tensor:
        """The attention branch, of the wanted rows."""
        heads = self.attention.heads(*self.qkv.project_wanted(x, batch, self.ops))
        return self.output(self.attention(*heads, batch), wanted_adapters(batch))  # type: ignore[no-any-return]

    def feed(self, x: Tensor, batch: Batch) -> Tensor:
        """The feed-forward branch, of the wanted rows."""
        adapters = wanted_adapters(batch)
        return self.down(self.act(self.up(x, adapters)), adapters)  # type: ignore[no-any-return]


class OPT(NativeModel):
    """Token and position embeddings, blocks, norm, head; narrower embeddings are projected in and out (350M)."""

    layer_prefix = "model.decoder.layers."
    end_prefixes = (
        "model.decoder.embed_tokens.", "model.decoder.embed_positions.", "model.decoder.project_in.",
        "model.decoder.project_out.", "model.decoder.final_layer_norm.", "lm_head.",
    )  # fmt: skip

    def __init__(self, context: ModelContext, config: OPTConfig) -> None:
        super().__init__(context)
        name, hidden, width = "model.decoder", config.hidden_size, config.word_embed_proj_dim
        self.build_ends(f"{name}.embed_tokens", "lm_head", width, config.vocab_size)
        self.positions = self.project_in = self.norm = self.project_out = None
        if self.first:
            self.positions = PositionEmbedding(
                context, f"{name}.embed_positions", config.max_position_embeddings, hidden, offset=POSITION_OFFSET
            )
            if width != hidden:
                self.project_in = ReplicatedLinear(context, f"{name}.project_in", width, hidden)
        self.blocks = nn.ModuleList(OPTBlock(context, config, index) for index in self.layers)
        if self.last and config.final_norm:
            affine = config.layer_norm_elementwise_affine
            self.norm = LayerNorm(context, f"{name}.final_layer_norm", hidden, EPS, affine=affine)
        self.select_in(self.blocks)
        if self.last and width != hidden:
            self.project_out = ReplicatedLinear(context, f"{name}.project_out", hidden, width)

    def forward(self, batch: Batch) -> Tensor:
        x = self.enter(batch)
        if self.project_in is not None:
            x = self.project_in(x)
        if self.positions is not None:
            x = self.context.ops.add(x, self.positions(batch.positions))
        for block, seen in with_batches(self.blocks, batch):
            x = block(x, seen)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.project_out is None else self.project_out(x)
