"""Of a step's rows those that are wanted: the last layer goes on with them alone, once keys and values of all are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import Tensor, nn

from engine.layers.rotary import Rotation
from engine.plugin.contracts.model import AdapterBatch, Batch
from engine.plugin.contracts.operations import Operations


def wanted_rows(x: Tensor, batch: Batch, ops: Operations) -> Tensor:
    """The wanted rows of x [T, ...], or all of them."""
    return x if batch.wanted is None else ops.select(x, batch.wanted.rows)


def wanted_rotation(rotation: Rotation, batch: Batch) -> Rotation:
    """The wanted rows' rotation."""
    if batch.wanted is None:
        return rotation
    cos, sin = (rotation.ops.select(each, batch.wanted.rows) for each in (rotation.cos, rotation.sin))
    return Rotation(cos, sin, rotation.ops)


def wanted_adapters(batch: Batch) -> AdapterBatch | None:
    """The adapters of the rows that are left."""
    return batch.adapters if batch.wanted is None else batch.wanted.adapters


def with_batches(blocks: Iterable[nn.Module], batch: Batch) -> Iterator[tuple[nn.Module, Batch]]:
    """Each block with the batch that it is to see: only the last one hears which rows are wanted."""
    listed = list(blocks)
    whole = batch if batch.wanted is None else replace(batch, wanted=None)
    for number, block in enumerate(listed, 1):
        yield block, batch if number == len(listed) else whole
