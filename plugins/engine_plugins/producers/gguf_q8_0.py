"""A GGUF file of Q8_0: 8-bit integers with a scale per 32 inputs, embedding and head too; for llama.cpp and its kin."""

from __future__ import annotations

from engine.plugin import Producer, SourceModel, hookimpl

ENGINE_API = 1


@hookimpl
def engine_create_producer(model: SourceModel) -> Producer:
    """See the specification."""
    from ._gguf_producer import GgufProducer

    return GgufProducer(model, "Q8_0", "Q8_0")
