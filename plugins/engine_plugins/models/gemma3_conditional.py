"""Gemma 3 with a vision tower (4B and larger), served as a text model: images are refused, the tower is not loaded."""

from __future__ import annotations

from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models.gemma3 import Gemma3Config, describe_gemma3

ENGINE_API = 1


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The nested text configuration."""
    text = ConfigReader(config).table("text_config")
    if text is None:
        raise ConfigReader(config).complaint("text_config", config.get("text_config"), "an object")
    return text.values


class Gemma3ConditionalArchitecture(ModelArchitecture):
    """Gemma3ForConditionalGeneration, its language model only."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """The text model's facts; token ids and dtype stand in the outer object."""
        text = text_config(config)
        outer = {key: value for key, value in config.items() if key in ("eos_token_id", "bos_token_id")}
        return describe_gemma3({**text, **outer, **_dtype(config)}, text, "Gemma3ForConditionalGeneration")

    def build(self, context: ModelContext) -> Model:
        """The text network, which knows the tower's tensors as leftovers."""
        from engine_plugins.models.nets.gemma3 import Gemma3InTower

        return Gemma3InTower(context, Gemma3Config.read(text_config(context.config)))


def _dtype(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("dtype", "torch_dtype") if config.get(key) is not None}


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Gemma3ConditionalArchitecture()
