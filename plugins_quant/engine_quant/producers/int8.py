"""8-bit integers with one scale per output, for compressed-tensors: rounded to nearest, activations as they are."""

from __future__ import annotations

from dataclasses import dataclass

from engine.plugin import Producer, SourceModel, hookimpl

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``group_size``: inputs per scale, 0: one scale per output. ``search``: try several scales per group."""

    group_size: int = 0
    search: bool = False


@hookimpl
def engine_create_producer(model: SourceModel, options: Options) -> Producer:
    """See the specification."""
    from ._integers import IntegerProducer

    return IntegerProducer(model, 8, options.group_size, options.search)
