"""The GPT-2 network (Radford et al. 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from engine.layers.activation import Activation
from engine.layers.attention import Attention
from engine.layers.embedding import PositionEmbedding
from engine.layers.linear import ColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from engine.layers.loading import NameRules
from engine.layers.model import NativeModel
from engine.layers.norm import LayerNorm
from engine.layers.wanted import wanted_adapters, wanted_rows, with_batches

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.gpt2 import GPT2Config


class GPT2Block(nn.Module):
    """Attention and feed-forward, each on a normalised residual stream. Checkpoints keep the matrices as [inputs, outputs]."""

    selects = True

    def __init__(self, context: ModelContext, config: GPT2Config, index: int) -> None:
        super().__init__()
        name = f"transformer.h.{index}"
        self.ops = context.ops
        heads, hidden, eps = config.heads, config.n_embd, config.layer_norm_epsilon
        self.attention_norm = LayerNorm(context, f"{name}.ln_1", hidden, eps)
        self.qkv = QKVParallelLinear(
            context, f"{name}.attn.c_attn", (), hidden,
            num_heads=heads.queries, num_kv_heads=heads.kv, head_dim=heads.dim, bias=True, transposed=True,
        )  # fmt: skip
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(context, f"{name}.attn.c_proj", hidden, hidden, bias=True, transposed=True, unit=heads.dim)
        self.mlp_norm = LayerNorm(context, f"{name}.ln_2", hidden, eps)
        self.up = ColumnParallelLinear(context, f"{name}.mlp.c_fc", hidden, config.n_inner, bias=True, transposed=True)
        self.down = RowParallelLinear(context, f"{name}.mlp.c_proj", config.n_inner, hidden, bias=True, transposed=True)
        self.act = Activation(context, config.activation_function)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        heads = self.attention.heads(*self.qkv.project_wanted(self.attention_norm(x), batch, self.ops))
        mixed = self.attention(*heads, batch)
        adapters = wanted_adapters(batch)
        x = self.ops.add(wanted_rows(x, batch, self.ops), self.output(mixed, adapters))
        inner = self.act(self.up(self.mlp_norm(x), adapters))
        return self.ops.add(x, self.down(inner, adapters))


class GPT2(NativeModel):
    """Token and position embeddings, blocks, norm, head."""

    names = NameRules(base_prefix="transformer.", leftovers=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",))
    layer_prefix = "transformer.h."
    end_prefixes = ("transformer.wte.", "transformer.wpe.", "transformer.ln_f.", "lm_head.")

    def __init__(self, context: ModelContext, config: GPT2Config) -> None:
        super().__init__(context)
        hidden = config.n_embd
        self.build_ends("transformer.wte", "lm_head", hidden, config.vocab_size)
        self.positions = self.norm = None
        if self.first:
            self.positions = PositionEmbedding(context, "transformer.wpe", config.n_positions, hidden)
        self.blocks = nn.ModuleList(GPT2Block(context, config, index) for index in self.layers)
        if self.last:
            self.norm = LayerNorm(context, "transformer.ln_f", hidden, config.layer_norm_epsilon)
        self.select_in(self.blocks)

    def forward(self, batch: Batch) -> Tensor:
        x = self.enter(batch)
        if self.positions is not None:
            x = self.context.ops.add(x, self.positions(batch.positions))
        for block, seen in with_batches(self.blocks, batch):
            x = block(x, seen)
        return x if self.norm is None else self.norm(x)
