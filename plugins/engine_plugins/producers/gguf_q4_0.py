"""A GGUF file of Q4_0: 4-bit integers with a scale per 32 inputs, embedding and head in Q8_0; for llama.cpp and its kin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.plugin import Producer, SourceModel, hookimpl

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``ends``: the type of the embedding and the head."""

    ends: Literal["Q8_0", "Q4_0"] = "Q8_0"


@hookimpl
def engine_create_producer(model: SourceModel, options: Options) -> Producer:
    """See the specification."""
    from ._gguf_producer import GgufProducer

    return GgufProducer(model, "Q4_0", options.ends)
