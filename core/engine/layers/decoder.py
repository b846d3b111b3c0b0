"""What rotary decoders have in common: their attention, their blocks, the way through the network."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from engine.layers.attention import Attention
from engine.layers.linear import QKVParallelLinear, RowParallelLinear
from engine.layers.mlp import GatedMLP
from engine.layers.model import NativeModel
from engine.layers.moe import SparseMLP
from engine.layers.norm import RMSNorm
from engine.layers.rope import RopeSpec
from engine.layers.rotary import RotaryEmbedding, Rotation, rotate
from engine.layers.wanted import wanted_adapters, wanted_rotation, wanted_rows, with_batches
from engine.plugin.contracts.model import Batch, ModelContext

#: Makes a family's norm from its checkpoint name and its size.
MakeNorm = Callable[[str, int], RMSNorm]


class RotaryAttention(nn.Module):
    """Rotary grouped-query attention of layer ``index``, with the heads, scale, window and cap of that layer's spec.

    ``bias`` is that of queries, keys and values, ``output_bias`` that of the projection back to ``hidden``. ``fused``: the
    checkpoint holds the three projections as one ``qkv_proj``. ``norm`` makes the norms of each head's queries and keys.
    """

    def __init__(
        self, context: ModelContext, index: int, hidden: int,
        *, bias: bool = False, output_bias: bool = False, fused: bool = False, norm: MakeNorm | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name, spec = f"model.layers.{index}.self_attn", context.info.layers[index]
        size = spec.head_dim
        parts = () if fused else (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj")
        self.qkv = QKVParallelLinear(
            context, f"{name}.qkv_proj", parts, hidden,
            num_heads=spec.num_heads, num_kv_heads=spec.num_kv_heads, head_dim=size, bias=bias,
        )  # fmt: skip
        self.q_norm: nn.Module = nn.Identity() if norm is None else norm(f"{name}.q_norm", size)
        self.k_norm: nn.Module = nn.Identity() if norm is None else norm(f"{name}.k_norm", size)
        self.attention = Attention(context, index)
        self.output = RowParallelLinear(context, f"{name}.o_proj", spec.num_heads * size, hidden, bias=output_bias, unit=size)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        """[T, hidden] → [T, hidden], or [R, hidden] of the wanted rows."""
        q, k, v = self.attention.heads(*self.qkv.project_wanted(x, batch, rotation.ops))
        q = rotate(self.q_norm(q), wanted_rotation(rotation, batch))
        mixed = self.attention(q, rotate(self.k_norm(k), rotation), v, batch)
        return self.output(mixed, wanted_adapters(batch))  # type: ignore[no-any-return]


class PreNormBlock(nn.Module):
    """Attention and feed-forward, each on a normalised residual stream."""

    selects = True

    def __init__(
        self, context: ModelContext, index: int, hidden: int, attention: RotaryAttention, mlp: GatedMLP | SparseMLP, norm: MakeNorm
    ) -> None:
        super().__init__()
        self.ops = context.ops
        self.attention_norm = norm(f"model.layers.{index}.input_layernorm", hidden)
        self.attention = attention
        self.mlp_norm = norm(f"model.layers.{index}.post_attention_layernorm", hidden)
        self.mlp = mlp

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        """[T, hidden] → [T, hidden], or [R, hidden] of the wanted rows."""
        mixed = self.attention(self.attention_norm(x), batch, rotation)
        x = self.ops.add(wanted_rows(x, batch, self.ops), mixed)
        return self.ops.add(x, self.mlp(self.mlp_norm(x), wanted_adapters(batch)))


class SandwichBlock(nn.Module):
    """Attention and feed-forward, each between two norms (Gemma)."""

    selects = True

    def __init__(
        self, context: ModelContext, index: int, hidden: int, attention: RotaryAttention, mlp: GatedMLP, norm: MakeNorm
    ) -> None:
        super().__init__()
        name = f"model.layers.{index}"
        self.ops = context.ops
        self.before_attention = norm(f"{name}.input_layernorm", hidden)
        self.attention = attention
        self.after_attention = norm(f"{name}.post_attention_layernorm", hidden)
        self.before_mlp = norm(f"{name}.pre_feedforward_layernorm", hidden)
        self.mlp = mlp
        self.after_mlp = norm(f"{name}.post_feedforward_layernorm", hidden)

    def forward(self, x: Tensor, batch: Batch, rotation: Rotation) -> Tensor:
        """[T, hidden] → [T, hidden], or [R, hidden] of the wanted rows."""
        mixed = self.after_attention(self.attention(self.before_attention(x), batch, rotation))
        x = self.ops.add(wanted_rows(x, batch, self.ops), mixed)
        return self.ops.add(x, self.after_mlp(self.mlp(self.before_mlp(x), wanted_adapters(batch))))


class RotaryDecoder(NativeModel):
    """Embedding (times ``scale``), the blocks that ``block`` makes by layer number, norm, head, under the usual checkpoint names."""

    def __init__(
        self, context: ModelContext, *, vocab: int, hidden: int, rope: RopeSpec,
        block: Callable[[int], nn.Module], norm: MakeNorm, scale: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(context)
        self.build_ends("model.embed_tokens", "lm_head", hidden, vocab, scale=scale)
        self.rotary = RotaryEmbedding(rope, context.longest, context.device, context.ops)
        self.blocks = nn.ModuleList(block(index) for index in self.layers)
        self.norm = norm("model.norm", hidden) if self.last else None
        self.select_in(self.blocks)

    def rotations(self, batch: Batch, x: Tensor) -> list[Rotation]:
        """The rotation of each of the stage's layers."""
        return [self.rotary(batch.positions, x.dtype)] * len(self.blocks)

    def forward(self, batch: Batch) -> Tensor:
        """See :meth:`~engine.plugin.contracts.model.Model.forward`."""
        x = self.enter(batch)
        for (block, seen), rotation in zip(with_batches(self.blocks, batch), self.rotations(batch, x), strict=True):
            x = block(x, seen, rotation)
        return x if self.norm is None else self.norm(x)
