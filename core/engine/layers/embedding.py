"""Token and position embeddings, and the head that turns hidden states into logits."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from engine.layers.linear import Linear, collect
from engine.layers.loading import CheckpointLayer, Slot, copy_slot
from engine.layers.packed_parts import DenseParts
from engine.layers.shards import Part, Piece
from engine.plugin.contracts.model import ModelContext, Parallel
from engine.plugin.contracts.packed import LinearKernel, LinearShape, PackedWeight


def vocab_share(vocab: int, parallel: Parallel) -> tuple[int, Piece]:
    """Rows per rank (the vocabulary padded to a multiple of the ranks), and the real rows that this rank holds."""
    rows = -(-vocab // parallel.size)
    start = min(parallel.rank * rows, vocab)
    return rows, Piece(start, min(rows, vocab - start))


class VocabParallelEmbedding(CheckpointLayer):
    """Token embeddings, rows divided among the ranks. ``scale`` multiplies them, rounded to the activations' dtype.

    A quantized one stays packed: the rows that a step asks for are dequantized, by the device's kernel where that gives rows.
    """

    def __init__(self, context: ModelContext, name: str, vocab: int, size: int, *, scale: float | None = None) -> None:
        super().__init__()
        self.name = name
        self.vocab, self.size = vocab, size
        self.scale = None if scale is None else float(torch.tensor(scale, dtype=context.dtype))
        self.context = context
        self.ops = context.ops
        self.parallel = context.parallel
        self.rows, self.share = vocab_share(vocab, context.parallel)
        shape = LinearShape(name, size, vocab, role="embedding")
        answer = context.quantizer.embedding(shape) if context.quantizer else None
        self.collected = collect(context, shape, (Part(name, vocab, (self.share,)),), Piece(0, size), answer)
        self.packed: PackedWeight | None = None
        #: The plain weight, until a tied head's kernel has it; and before ``finish`` the rows as they came.
        self.weight: Tensor | None = None
        self.held: Tensor | None = None
        self.plain = not self.collected
        #: Whether a tied head shares the weight.
        self.tied = False
        #: What multiplies by the weight, for a tied head; and the same where it gives back rows, which then come from it.
        self.multiplies: LinearKernel | None = None
        self.kernel: LinearKernel | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [T] → [T, size]."""
        if self.parallel.size == 1:
            return self.rows_of(ids)
        local = ids - self.share.start
        outside = (local < 0) | (local >= self.share.size)
        rows = self.rows_of(local.masked_fill(outside, 0))
        return self.parallel.all_reduce(rows.masked_fill(outside.unsqueeze(-1), 0))

    def rows_of(self, ids: Tensor) -> Tensor:
        """This rank's rows, from the weight or from a kernel that has it."""
        if self.kernel is not None:
            return self.kernel.gather(ids, self.scale, *([] if self.plain else [self.context.dtype]))
        if self.weight is not None:
            return self.ops.embed(ids, self.weight, scale=self.scale)
        if self.packed is None:
            raise RuntimeError(f"{self.name} is used before finish()")
        rows = self.packed.take(ids, self.context.dtype)
        return rows if self.scale is None else rows * rows.new_tensor(self.scale)

    def share_kernel(self) -> LinearKernel:
        """The kernel of a tied head. It takes the weight over where it can give back rows."""
        self.finish_once()
        if self.multiplies is not None:
            return self.multiplies
        if self.held is None:
            raise RuntimeError(f"{self.name} has no weight to share")
        packed, self.held = DenseParts([self.held], self.context.device), None
        kernel = self._follow(self.context.kernel(packed))
        if not kernel.gathers:
            self.weight = self._never_empty(packed.weight)
        return kernel

    def hold(self, packed: PackedWeight) -> None:
        """A quantized weight: this rank's rows. It is the kernel's alone where that gives back rows."""
        self.packed, self.plain, self.collected = packed, False, ()
        self._follow(self.context.kernel(packed))

    def hold_plain(self, weight: Tensor) -> None:
        """A plain weight, instead of what the slots would take: this rank's rows."""
        self.plain, self.collected, self.held = True, (), weight.to(self.context.dtype)

    def _follow(self, kernel: LinearKernel) -> LinearKernel:
        """Keep the kernel for a tied head, and take rows from it from now on, where it has them."""
        self.multiplies = kernel
        if kernel.gathers:
            self.kernel, self.packed = kernel, None
        return kernel

    def slots(self) -> Iterable[Slot]:
        """The weight, or what its format asks for."""
        if self.collected:
            yield from self.collected[0].slots(0)
            return

        def take(tensor: Tensor) -> None:
            self.held = tensor.narrow(0, self.share.start, self.share.size).to(self.context.dtype)

        yield Slot(f"{self.name}.weight", (self.vocab, self.size), take, keeps=self.context.dtype)

    def finish(self) -> None:
        """Pack a quantized weight; a plain one that no head shares gets memory of its own."""
        if self.collected:
            self.hold(self.collected[0].pack())
        elif not self.tied and self.held is not None:
            self.weight, self.held = self._never_empty(DenseParts([self.held], self.context.device).weight), None

    def _never_empty(self, weight: Tensor) -> Tensor:
        """A rank that holds no rows looks up row 0 for all ids, and drops what it finds."""
        return weight if len(weight) else weight.new_zeros(1, self.size)


class PositionEmbedding(CheckpointLayer):
    """Learned positions, whole on every rank. ``offset``: rows before position 0."""

    def __init__(self, context: ModelContext, name: str, count: int, size: int, *, offset: int = 0) -> None:
        super().__init__()
        self.name = name
        self.offset = offset
        self.ops = context.ops
        self.weight = torch.empty(count + offset, size, dtype=context.dtype, device=context.device)

    def forward(self, positions: Tensor) -> Tensor:
        """int64 [T] → [T, size]."""
        return self.ops.embed(positions, self.weight, offset=self.offset)

    def slots(self) -> Iterable[Slot]:
        """The weight."""
        yield copy_slot(f"{self.name}.weight", self.weight)


class LMHead(Linear):
    """Hidden states → logits of the whole vocabulary on every rank. ``tied``: the embedding whose weight it shares."""

    def __init__(
        self,
        context: ModelContext,
        name: str,
        hidden: int,
        vocab: int,
        *,
        bias: bool = False,
        tied: VocabParallelEmbedding | None = None,
    ) -> None:
        self.rows, share = vocab_share(vocab, context.parallel)
        parts = (Part(name, vocab, (share,)),)
        shape = LinearShape(name, hidden, vocab, role="head")
        super().__init__(context, shape, parts, Piece(0, hidden), bias=bias, shared=tied is not None)
        self.vocab = vocab
        # A plain attribute would register the embedding a second time as this layer's child.
        self.tied = (tied,) if tied is not None else ()
        for embedding in self.tied:
            embedding.tied = True

    def slots(self) -> Iterable[Slot]:
        """Nothing of its own where the weight is tied."""
        return () if self.tied else super().slots()

    def finish(self) -> None:
        """Make the kernel, of the embedding's weight where it is tied."""
        if self.tied:
            self.kernel = self.tied[0].share_kernel()
        else:
            super().finish()

    def forward(self, x: Tensor, adapters: object = None) -> Tensor:
        """[rows, hidden] → [rows, vocab]."""
        y = self.multiply(x, self.bias, None)
        if self.context.parallel.size == 1:
            return y
        padded = functional.pad(y, (0, self.rows - y.shape[-1]))
        return self.context.parallel.all_gather(padded, -1)[..., : self.vocab]
