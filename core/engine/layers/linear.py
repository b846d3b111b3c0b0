"""Linear layers: tensor-parallel shards of dense or quantized weights, fused parts, one kernel each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import msgspec
import torch
from torch import Tensor

from engine.layers.collecting import Collected, PlainFormat
from engine.layers.loading import CheckpointLayer, Slot, zero_slot
from engine.layers.packed_joining import join
from engine.layers.packed_parts import DenseParts
from engine.layers.shards import Part, Piece, copy_pieces, fused_parts, shard, shard_kv_heads
from engine.plugin.contracts.model import AdapterBatch, Batch, ModelContext
from engine.plugin.contracts.operations import Operations
from engine.plugin.contracts.packed import LinearKernel, LinearShape, PackedWeight, PartFormats, WeightFormat


class Linear(CheckpointLayer):
    """y = x Wᵀ + b over this rank's shard. Subclasses say which outputs and inputs the rank holds.

    ``shape`` is the whole layer; ``parts`` its checkpoint prefixes; ``inputs`` the inputs that this rank holds. The parts of a
    dense weight are held as they come, mapped files as a rule, until ``finish`` (:class:`~engine.layers.packed_parts.DenseParts`);
    a quantized one is collected as its :class:`WeightFormat` asks (:class:`~engine.layers.collecting.Collected`). ``transposed``:
    plain tensors are [inputs, outputs]. ``shared``: the weight is another layer's.
    """

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
        self.kernel: LinearKernel | None = None
        self.collected = () if shared else collect(context, shape, parts, inputs, self._format(), transposed)
        self.held: dict[int, list[Tensor]] = {}
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
            if not self.collected:
                yield self._weight_slot(part, index)
            else:
                collected, own = self._of_part(index)
                yield from collected.slots(own)
            if self.bias is not None:
                yield self._bias_slot(part, row)
            elif self.collected:
                yield zero_slot(f"{part.name}.bias")
            row += sum(piece.size for piece in part.pieces)

    def plain_slots(self) -> list[Slot | None]:
        """For each part the slot that takes its plain weight; None where a quantized one is wanted."""
        if not self.collected:
            weights = {part.name: f"{part.name}.weight" for part in self.parts}
            slots = {slot.name: slot for slot in self.slots()}
            return [slots[weights[part.name]] for part in self.parts]
        found = []
        for index in range(len(self.parts)):
            collected, own = self._of_part(index)
            found.append(collected.plain_slot(own))
        return found

    def take_as_found(self, names: Collection[str]) -> None:
        """Parts whose plain weight is among the checkpoint's ``names``, and nothing of their format, are plain, whatever the config says.

        Producers leave layers alone that no list names: those outside blocks, those whose shape their kernels do not take.
        """
        if not self.collected:
            return
        formats: list[WeightFormat | None] = []
        for index, part in enumerate(self.parts):
            collected, _ = self._of_part(index)
            packed = any(f"{part.name}.{spec.suffix}" in names for spec in collected.specs)
            formats.append(collected.format if packed or f"{part.name}.weight" not in names else None)
        if None in formats:
            answer = PartFormats(tuple(formats)) if any(formats) else None
            self.collected = collect(self.context, self.shape, self.parts, self.inputs, answer, self.transposed)

    def leave_plain(self) -> None:
        """Take the plain weight, whatever the config says."""
        self.collected = ()

    def finish(self) -> None:
        """Pack the weight and make its kernel; the raw tensors are let go."""
        if self.kernel is not None:
            raise RuntimeError(f"{self.shape.name} is finished twice")
        packed = self._packed()
        self.collected = ()
        if self.context.offload is not None:
            self.kernel = self.context.offload(packed)
        if self.kernel is None:
            self.kernel = self.context.kernel(packed)
            if isinstance(packed, DenseParts):
                packed.settle()

    def hold_plain(self, weight: Tensor) -> None:
        """A plain weight [outputs, inputs] of this rank, instead of what the slots would take."""
        self.collected = ()
        self.held = {index: [weight.to(self.context.dtype)] if index == 0 else [] for index in range(len(self.parts))}

    def _packed(self) -> PackedWeight:
        if not self.collected:
            held = [piece for index in range(len(self.parts)) for piece in self.held[index]]
            self.held = {}
            return DenseParts(held, self.context.device)
        packed = [each.pack() for each in self.collected]
        return join(packed)

    def _format(self) -> WeightFormat | PartFormats | None:
        """What the quantizer says of this layer."""
        return self.context.quantizer.linear(self.shape) if self.context.quantizer else None

    def _of_part(self, index: int) -> tuple[Collected, int]:
        """What collects a part's tensors, and the part's number there."""
        return (self.collected[0], index) if len(self.collected) == 1 else (self.collected[index], 0)

    def _weight_slot(self, part: Part, index: int) -> Slot:
        def take(tensor: Tensor) -> None:
            if self.kernel is not None:
                raise RuntimeError(f"{self.shape.name} is loaded after finish()")
            whole = tensor.t() if self.transposed else tensor
            columns = whole.narrow(1, self.inputs.start, self.inputs.size)
            pieces = [columns.narrow(0, piece.start, piece.size).to(self.context.dtype) for piece in part.pieces]
            # adjacent columns are what kernels read; pieces of another order or dtype are memory of their own from here on
            self.held[index] = [piece if piece.stride(1) == 1 else piece.contiguous() for piece in pieces]

        whole = (part.outputs, self.shape.inputs)
        keeps = None if self.transposed else self.context.dtype
        return Slot(f"{part.name}.weight", whole[::-1] if self.transposed else whole, take, keeps=keeps)

    def _bias_slot(self, part: Part, row: int) -> Slot:
        def take(tensor: Tensor) -> None:
            if self.bias is not None:
                copy_pieces(tensor, part.pieces, self.bias, row)

        return Slot(f"{part.name}.bias", (part.outputs,), take)


def collect(
    context: ModelContext, shape: LinearShape, parts: tuple[Part, ...], inputs: Piece, answer: WeightFormat | PartFormats | None,
    transposed: bool = False,
) -> tuple[Collected, ...]:  # fmt: skip
    """What collects a layer's tensors: nothing for a plain one, one for all parts, or one per part."""
    if answer is None:
        return ()
    if not isinstance(answer, PartFormats):
        return (Collected(context, shape, parts, inputs, answer, transposed),)
    if len(answer.formats) != len(parts):
        raise ValueError(f"{shape.name} has {len(parts)} parts, but {len(answer.formats)} formats")
    made = []
    for part, format in zip(parts, answer.formats, strict=True):
        own = msgspec.structs.replace(shape, name=part.name, outputs=part.outputs, parts=(), sizes=())
        made.append(Collected(context, own, (part,), inputs, format or PlainFormat(), transposed))
    return tuple(made)


class ReplicatedLinear(Linear):
    """The whole layer on every rank. ``router``: it chooses experts."""

    def __init__(
        self,
        context: ModelContext,
        name: str,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        transposed: bool = False,
        router: bool = False,
    ) -> None:
        parts = (Part(name, outputs, (Piece(0, outputs),)),)
        shape = LinearShape(name, inputs, outputs, role="router" if router else "linear")
        super().__init__(context, shape, parts, Piece(0, inputs), bias=bias, transposed=transposed)


class ColumnParallelLinear(Linear):
    """Outputs divided among the ranks; the result is this rank's share. ``unit``: outputs that stay together (a head)."""

    def __init__(
        self, context: ModelContext, name: str, inputs: int, outputs: int,
        *, bias: bool = False, transposed: bool = False, unit: int = 1,
    ) -> None:  # fmt: skip
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
        self.apart: tuple[LinearKernel | None, LinearKernel | None] | None = None

    def project(self, x: Tensor, adapters: AdapterBatch | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """[T, inputs] → this rank's q [T, heads · head_dim], k and v [T, kv_heads · head_dim]."""
        q, k, v = self(x, adapters).split(self.split, dim=-1)
        return q, k, v

    def project_wanted(self, x: Tensor, batch: Batch, ops: Operations) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`project`, but q of the batch's wanted rows alone."""
        if batch.wanted is None:
            return self.project(x, batch.adapters)
        cut = self.split[0]
        if self.kernel is not None and self.apart is None:
            self.apart = self.kernel.part(0, cut), self.kernel.part(cut, self.outputs)
        queries, rest = self.apart or (None, None)
        if queries is None or rest is None or (batch.adapters is not None and self.adapter is not None):
            q, k, v = self.project(x, batch.adapters)
            return ops.select(q, batch.wanted.rows), k, v
        first, last = (None, None) if self.bias is None else (self.bias[:cut], self.bias[cut:])
        both = rest.apply(x, last)
        return queries.apply(ops.select(x, batch.wanted.rows), first), both[:, : self.split[1]], both[:, self.split[1] :]


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
