"""Scales of an 8-bit KV cache in a worker's model: the checkpoint's, or computed from the first step."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import nn

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.layers.attention import Attention
from engine.plugin.contracts.model import Model

_log = logging.getLogger(__name__)


def attention_layers(model: Model) -> Iterator[Attention]:
    """The layers of a native model that own pages."""
    if isinstance(model, nn.Module):
        yield from (module for module in model.modules() if isinstance(module, Attention))


def take_scales(model: Model, config: EngineConfig, rank: int) -> None:
    """Give each layer the checkpoint's scales, where the cache is scaled; where there are none they stay 1, which rank 0 logs."""
    if not config.cache.scaled or config.cache.calculate_scales:
        return
    layers, found = list(attention_layers(model)), model.kv_scales()
    for layer in layers:
        scales = found.get(layer.index, {})
        layer.scale(scales.get("k_scale", 1.0), scales.get("v_scale", 1.0))
    if rank == 0 and (not layers or any(layer.index not in found for layer in layers)):
        _log.warning(
            "The checkpoint has no scales for an 8-bit KV cache, so they are 1.0. Values beyond the range of 8 bits are cut; "
            "--calculate-kv-scales takes scales from the first step."
        )


def calculate_scales(model: Model) -> None:
    """Have every layer take its scales from the next step. Raises :class:`ConfigError` for a model that has no layers of the engine."""
    layers = list(attention_layers(model))
    if not layers:
        raise ConfigError(
            "--calculate-kv-scales: this model's attention is not the engine's own, and has no scales.", fix="--model-impl auto"
        )
    for layer in layers:
        layer.calibrates = True
