"""What a dense model has to read and to compute, from the headers of its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Protocol

from engine.errors import ConfigError
from engine.plugin.facts import DTYPE_BYTES, AttentionSpec

if TYPE_CHECKING:
    from engine.config import EngineConfig


class Header(Protocol):
    """What is needed of a loader's ``TensorInfo``."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class ModelWork:
    """``linear``: elements of the matrices of all layers; ``head``: of the one that makes logits. Bytes as they are held."""

    linear: int
    head: int
    weight_bytes: int
    layers: tuple[AttentionSpec, ...]
    cache_element: float

    def step_bytes(self, batch: int, context: float) -> float:
        """Bytes that a decode step must read: every weight once, and the keys and values of every sequence."""
        cache = sum(2 * spec.num_kv_heads * spec.head_dim * _seen(spec, context) for spec in self.layers)
        return self.weight_bytes + batch * cache * self.cache_element

    def step_operations(self, batch: int, context: float) -> float:
        """Multiplications and additions of a decode step."""
        scores = sum(4 * spec.num_heads * spec.head_dim * _seen(spec, context) for spec in self.layers)
        return batch * (2 * (self.linear + self.head) + scores)

    def prefill_operations(self, batch: int, length: int) -> float:
        """Of prompts of ``length`` tokens: each token attends to those before it, logits are made of the last alone."""
        scores = sum(4 * spec.num_heads * spec.head_dim * _area(spec, length) for spec in self.layers)
        return batch * (2 * self.linear * length + 2 * self.head + scores)


def _seen(spec: AttentionSpec, context: float) -> float:
    return min(context, spec.window) if spec.window else context


def _area(spec: AttentionSpec, length: int) -> float:
    """Pairs of a token and one that it attends to."""
    if spec.window and spec.window < length:
        return spec.window * (spec.window + 1) / 2 + (length - spec.window) * spec.window
    return length * (length + 1) / 2


def count(headers: Iterable[Header], layers: tuple[AttentionSpec, ...], dtype: str, cache_dtype: str) -> ModelWork:
    """From tensor names and shapes: a table of embeddings is read whole where it is the head too, else a row of it."""
    matrices = {header.name: prod(header.shape) for header in headers if len(header.shape) >= 2}
    tables = [name for name in matrices if "embed" in name or name.endswith(("wte.weight", "wpe.weight"))]
    heads = [name for name in matrices if "lm_head" in name or "embed_out" in name]
    words = max((matrices[name] for name in tables if name not in heads), default=0)
    head = matrices[heads[0]] if heads else words
    linear = sum(size for name, size in matrices.items() if name not in tables and name not in heads)
    return ModelWork(linear, head, int((linear + head) * DTYPE_BYTES[dtype]), layers, DTYPE_BYTES[cache_dtype])


def model_work(config: EngineConfig) -> ModelWork:
    """The configured model's. Raises ConfigError for models whose work the headers do not tell."""
    from engine.plugin.host import load
    from engine.plugin.kinds import LOADER

    model = config.model
    _refuse(config)
    loader = load(
        config.choices["loader"], LOADER, checkpoint=model.checkpoint, info=model.info, options=dict(config.load.options)
    )
    try:
        return count(loader.describe(), tuple(model.info.layers), model.dtype, config.cache.dtype)
    finally:
        loader.close()


def _refuse(config: EngineConfig) -> None:
    if "quantization" in config.choices:
        raise ConfigError("bench roofline counts unquantized weights only.", fix="engine bench latency MODEL")
    experts = config.model.info.num_experts
    if experts:
        raise ConfigError(f"bench roofline knows dense models only; this one has {experts} experts.", fix="engine bench latency MODEL")
    if config.parallel.tensor_parallel * config.parallel.pipeline_parallel > 1:
        raise ConfigError("bench roofline measures one worker.", fix="--tensor-parallel-size 1")
