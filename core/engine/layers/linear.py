"""Linear layers: tensor-parallel shards of dense or quantized weights, fused parts, one kernel each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import torch
from torch import Tensor

from engine.errors import ModelFileError
from engine.layers.loading import CheckpointLayer, Slot
from engine.layers.packed import DensePacked
from engine.layers.shards import Part, Piece, copy_pieces, cut, fused_parts, shard, shard_kv_heads
from engine.plugin.contracts.model import AdapterBatch, ModelContext
from engine.plugin.contracts.packed import CheckpointTensor, LinearKernel, LinearShape, WeightFormat


class Linear(CheckpointLayer):
    """y = x Wᵀ + b over this rank's shard. Subclasses say which outputs and inputs the rank holds.

    ``shape`` is the whole layer; ``parts`` its checkpoint prefixes; ``inputs`` the inputs that this rank holds. A dense weight
    is allocated once in its final form and tensors are copied into it; a quantized one is collected as its
    :class:`WeightFormat` asks: parts are joined along the output axis, tensors without one are stacked [parts, …] where the
    layer has several parts. ``transposed``: dense tensors are [inputs, outputs]. ``shared``: the weight is another layer's.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, context: ModelContext, shape: LinearShape, parts: tuple[Part, ...], inputs: Piece,
        *, bias: bool = False, transposed: bool = False, shared: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = shape
        self.parts = parts
        self.inputs = inputs
        self.context = context
        self.transposed = transposed
        self.outputs = sum(piece.size for part in parts for piece in part.pieces)
        self.format: WeightFormat | None = context.quantizer.linear(shape) if context.quantizer and not shared else None
        self.kernel: LinearKernel | None = None
        self.collected: dict[tuple[str, int], Tensor] = {}
        own = self.format is None and not shared
        self.weight = torch.empty(self.outputs, inputs.size, dtype=context.dtype, device=context.device) if own else None
        self.bias = torch.zeros(self.outputs, dtype=context.dtype, device=context.device) if bias else None
        #: Where a LoRA term belongs: called with x and the batch's adapters, its result is added to the rank's output.
        self.adapter: Callable[[Tensor, AdapterBatch], Tensor] | None = None

    def forward(self, x: Tensor, adapters: AdapterBatch | None = None) -> Tensor:
        """[rows, this rank's inputs] → [rows, this rank's outputs]."""
        return self.multiply(x, self.bias, adapters)

    def multiply(self, x: Tensor, bias: Tensor | None, adapters: AdapterBatch | None) -> Tensor:
        """The kernel's product and the adapters' term."""
        if self.kernel is None:
            raise RuntimeError(f"{self.shape.name} is used before finish()")
        y = self.kernel.apply(x, bias)
        if adapters is not None and self.adapter is not None:
            y = y + self.adapter(x, adapters)
        return y

    def slots(self) -> Iterable[Slot]:
        """Weight (or the format's tensors) and bias of each part."""
        row = 0
        for index, part in enumerate(self.parts):
            if self.format is None:
                yield self._weight_slot(part, row)
            else:
                yield from (self._format_slot(part, index, tensor) for tensor in self.format.tensors())
            if self.bias is not None:
                yield self._bias_slot(part, row)
            row += sum(piece.size for piece in part.pieces)

    def finish(self) -> None:
        """Pack the weight and make its kernel; the raw tensors are let go."""
        if self.format is None:
            if self.weight is None:
                raise RuntimeError(f"{self.shape.name} is finished twice")
            self.kernel = self.context.kernel(DensePacked(self.weight, exclusive=True))
        else:
            self.kernel = self.context.kernel(self.format.pack(self.rank_shape(), self._joined(), self.context.dtype))
        self.weight = None
        self.collected.clear()

    def rank_shape(self) -> LinearShape:
        """The layer as this rank holds it."""
        sizes = tuple(piece.size for part in self.parts for piece in part.pieces)
        return msgspec.structs.replace(
            self.shape,
            inputs=self.inputs.size,
            outputs=self.outputs,
            sizes=sizes if len(sizes) > 1 else self.shape.sizes,
        )

    def _weight_slot(self, part: Part, row: int) -> Slot:
        def take(tensor: Tensor) -> None:
            if self.weight is None:
                raise RuntimeError(f"{self.shape.name} is loaded after finish()")
            whole = tensor.t() if self.transposed else tensor
            columns = whole.narrow(1, self.inputs.start, self.inputs.size)
            copy_pieces(columns, part.pieces, self.weight, row)

        whole = (part.outputs, self.shape.inputs)
        return Slot(f"{part.name}.weight", whole[::-1] if self.transposed else whole, take)

    def _bias_slot(self, part: Part, row: int) -> Slot:
        def take(tensor: Tensor) -> None:
            if self.bias is not None:
                copy_pieces(tensor, part.pieces, self.bias, row)

        return Slot(f"{part.name}.bias", (part.outputs,), take)

    def _format_slot(self, part: Part, index: int, spec: CheckpointTensor) -> Slot:
        name = f"{part.name}.{spec.suffix}"

        def take(tensor: Tensor) -> None:
            if spec.output_axis is not None:
                cuts = [cut(name, tensor, spec.output_axis, piece, part.outputs, spec.output_group) for piece in part.pieces]
                tensor = cuts[0] if len(cuts) == 1 else torch.cat(cuts, spec.output_axis)
            if spec.input_axis is not None:
                tensor = cut(name, tensor, spec.input_axis, self.inputs, self.shape.inputs, spec.input_group)
            self.collected[spec.suffix, index] = tensor

        return Slot(name, None, take, optional=spec.optional)

    def _joined(self) -> dict[str, Tensor]:
        joined: dict[str, Tensor] = {}
        for spec in self.format.tensors() if self.format else ():
            found = [self.collected[spec.suffix, i] for i in range(len(self.parts)) if (spec.suffix, i) in self.collected]
            if not found:
                continue
            if len(found) != len(self.parts):
                raise ModelFileError(f"Only {len(found)} of {len(self.parts)} parts of {self.shape.name!r} have {spec.suffix!r}.")
            if len(found) == 1:
                whole = found[0]
            elif spec.output_axis is None:
                whole = torch.stack(found)
            else:
                whole = torch.cat(found, spec.output_axis)
            joined[spec.suffix] = whole.to(self.context.device)
        return joined


class ReplicatedLinear(Linear):
    """The whole layer on every rank."""

    def __init__(
        self,
        context: ModelContext,
        name: str,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        transposed: bool = False,
    ) -> None:
        parts = (Part(name, outputs, (Piece(0, outputs),)),)
        super().__init__(context, LinearShape(name, inputs, outputs), parts, Piece(0, inputs), bias=bias, transposed=transposed)


class ColumnParallelLinear(Linear):
    """Outputs divided among the ranks; the result is this rank's share. ``unit``: outputs that stay together (a head)."""

    def __init__(
        self,
        context: ModelContext,
        name: str,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        transposed: bool = False,
        unit: int = 1,
    ) -> None:
        share = shard(outputs // unit, context.parallel, f"the outputs of {name}")
        parts = (Part(name, outputs, (Piece(share.start * unit, share.size * unit),)),)
        super().__init__(context, LinearShape(name, inputs, outputs), parts, Piece(0, inputs), bias=bias, transposed=transposed)


class MergedColumnParallelLinear(Linear):
    """Several layers on one input as one product (gate and up): ``parts``: checkpoint prefixes, none where ``name`` is fused on disk."""

    def __init__(
        self, context: ModelContext, name: str, parts: tuple[str, ...], inputs: int, sizes: tuple[int, ...],
        *, bias: bool = False, experts: int = 0,
    ) -> None:  # fmt: skip
        shares = tuple(shard(size, context.parallel, f"the outputs of {name}") for size in sizes)
        super().__init__(
            context,
            _fused_shape(name, parts, inputs, sizes, experts),
            fused_parts(name, parts, sizes, shares),
            Piece(0, inputs),
            bias=bias,
        )


class QKVParallelLinear(Linear):
    """Query, key and value projections as one product, divided by heads (KV heads: see :func:`shard_kv_heads`).

    ``parts``: three checkpoint prefixes, or none where the checkpoint holds them fused under ``name``.
    """

    def __init__(
        self, context: ModelContext, name: str, parts: tuple[str, ...], inputs: int, *, num_heads: int, num_kv_heads: int, head_dim: int,
        bias: bool = False, transposed: bool = False,
    ) -> None:  # fmt: skip
        q = shard(num_heads, context.parallel, "the number of attention heads")
        kv = shard_kv_heads(num_kv_heads, context.parallel)
        shares = tuple(Piece(heads.start * head_dim, heads.size * head_dim) for heads in (q, kv, kv))
        sizes = (num_heads * head_dim, num_kv_heads * head_dim, num_kv_heads * head_dim)
        super().__init__(
            context, _fused_shape(name, parts, inputs, sizes, 0), fused_parts(name, parts, sizes, shares), Piece(0, inputs),
            bias=bias, transposed=transposed,
        )  # fmt: skip
        self.split = [piece.size for piece in shares]

    def project(self, x: Tensor, adapters: AdapterBatch | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """[T, inputs] → this rank's q [T, heads · head_dim], k and v [T, kv_heads · head_dim]."""
        q, k, v = self(x, adapters).split(self.split, dim=-1)
        return q, k, v


class RowParallelLinear(Linear):
    """Inputs divided among the ranks; the ranks' products are summed. ``reduce`` False leaves the sum to the caller."""

    def __init__(
        self, context: ModelContext, name: str, inputs: int, outputs: int,
        *, bias: bool = False, transposed: bool = False, unit: int = 1, reduce: bool = True, experts: int = 0,
    ) -> None:  # fmt: skip
        share = shard(inputs // unit, context.parallel, f"the inputs of {name}")
        parts = (Part(name, outputs, (Piece(0, outputs),)),)
        shape = LinearShape(name, inputs, outputs, experts=experts)
        super().__init__(context, shape, parts, Piece(share.start * unit, share.size * unit), bias=bias, transposed=transposed)
        self.reduce = reduce

    def forward(self, x: Tensor, adapters: AdapterBatch | None = None) -> Tensor:
        """[rows, this rank's inputs] → [rows, outputs], summed over the ranks."""
        parallel = self.context.parallel
        y = self.multiply(x, self.bias if parallel.rank == 0 else None, adapters)
        return parallel.all_reduce(y) if self.reduce and parallel.size > 1 else y


def _fused_shape(name: str, parts: tuple[str, ...], inputs: int, sizes: tuple[int, ...], experts: int) -> LinearShape:
    return LinearShape(name, inputs, sum(sizes), parts=parts, sizes=sizes, experts=experts)
