"""4-bit integers in groups of 128 (or what divides), for compressed-tensors: scales of least squared error, activations as they are."""

from __future__ import annotations

from dataclasses import dataclass

from engine.plugin import Producer, SourceModel, hookimpl

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``group_size``: inputs per scale, 0: one scale per output; None: 128, 64 or 32. ``search``: try several scales per group."""

    group_size: int | None = None
    search: bool = True


@hookimpl
def engine_create_producer(model: SourceModel, options: Options) -> Producer:
    """See the specification."""
    from ._integers import IntegerProducer

    return IntegerProducer(model, 4, options.group_size, options.search)
