"""What a model has to read and to compute, as the kernels of its layers tell."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.plugin.facts import DTYPE_BYTES, AttentionSpec

if TYPE_CHECKING:
    from engine.config import EngineConfig


@dataclass(frozen=True)
class ModelWork:
    """``linear``: elements of the matrices that a row meets, by the dtype in which they are multiplied; ``head``: of the one that makes
    logits. ``weight_bytes``: of all matrices that every step reads, as the kernels read them; ``routed``: of experts, by the share of the
    rows that each gets. ``dtype``: of activations, in which attention computes."""

    linear: Mapping[str, float]
    head: Mapping[str, float]
    weight_bytes: int
    layers: tuple[AttentionSpec, ...]
    cache_element: float
    dtype: str
    routed: Mapping[float, int] = field(default_factory=dict)

    def kinds(self) -> list[str]:
        """The dtypes of its arithmetic, that of the activations first."""
        return [self.dtype, *sorted({*self.linear, *self.head} - {self.dtype})]

    def read_weights(self, rows: int) -> float:
        """Bytes of the weights that a step of so many rows must read once; of experts those that are expected to be chosen by one of
        them, where all are chosen equally often and independently."""
        return self.weight_bytes + sum(nbytes * (1 - (1 - share) ** rows) for share, nbytes in self.routed.items())

    def step_bytes(self, batch: int, context: float) -> float:
        """Bytes that a decode step must read: every weight once, and the keys and values of every sequence."""
        cache = sum(2 * spec.num_kv_heads * spec.head_dim * _seen(spec, context) for spec in self.layers)
        return self.read_weights(batch) + batch * cache * self.cache_element

    def step_operations(self, batch: int, context: float) -> dict[str, float]:
        """Multiplications and additions of a decode step, by dtype."""
        scores = sum(4 * spec.num_heads * spec.head_dim * _seen(spec, context) for spec in self.layers)
        return self._operations(batch, 1, scores)

    def prefill_operations(self, batch: int, length: int) -> dict[str, float]:
        """Of prompts of ``length`` tokens: each token attends to those before it, logits are made of the last alone."""
        scores = sum(4 * spec.num_heads * spec.head_dim * _area(spec, length) for spec in self.layers)
        return self._operations(batch, length, scores)

    def _operations(self, batch: int, rows: int, scores: float) -> dict[str, float]:
        found = {kind: batch * 2.0 * (self.linear.get(kind, 0) * rows + self.head.get(kind, 0)) for kind in self.kinds()}
        found[self.dtype] += batch * scores
        return found


def _seen(spec: AttentionSpec, context: float) -> float:
    return min(context, spec.window) if spec.window else context


def _area(spec: AttentionSpec, length: int) -> float:
    """Pairs of a token and one that it attends to."""
    if spec.window and spec.window < length:
        return spec.window * (spec.window + 1) / 2 + (length - spec.window) * spec.window
    return length * (length + 1) / 2


def model_work(config: EngineConfig, told: Iterable[Mapping[str, Any]]) -> ModelWork:
    """Of what the worker's ``work`` told. Raises ConfigError where a layer's kernel cannot tell."""
    linear: defaultdict[str, float] = defaultdict(float)
    head: defaultdict[str, float] = defaultdict(float)
    routed: Counter[float] = Counter()
    nbytes = 0
    for layer in told:
        if "kernel" in layer:
            raise ConfigError(
                f"bench roofline: the kernel {layer['kernel']} of {layer['name']} does not tell what it reads and computes.",
                fix="engine bench latency MODEL",
            )
        share = layer["share"]
        (head if layer["role"] == "head" else linear)[layer["arithmetic"]] += layer["elements"] * share
        if share < 1:
            routed[share] += layer["read_bytes"]
        else:
            nbytes += layer["read_bytes"]
    model = config.model
    return ModelWork(linear, head, nbytes, tuple(model.info.layers), DTYPE_BYTES[config.cache.dtype], model.dtype, routed)


def refuse(config: EngineConfig) -> None:
    """Raise ConfigError where several workers share the work."""
    if config.parallel.tensor_parallel * config.parallel.pipeline_parallel > 1:
        raise ConfigError("bench roofline measures one worker.", fix="--tensor-parallel-size 1")
