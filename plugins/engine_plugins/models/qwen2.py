"""Qwen2 and Qwen2.5: biased queries, keys and values."""

from __future__ import annotations

from typing import Any

from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._qwen import QwenConfig, qwen_info

ENGINE_API = 1


def read_qwen2(config: dict[str, Any]) -> QwenConfig:
    """A Qwen2's keys with its own defaults; raises :class:`engine.errors.ModelFileError` naming the key."""
    return QwenConfig.read(config)


class Qwen2Architecture(ModelArchitecture):
    """Qwen2ForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """One spec per layer, with its window."""
        return qwen_info(config, read_qwen2(config), "Qwen2ForCausalLM")

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.qwen2 import Qwen2

        return Qwen2(context, read_qwen2(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Qwen2Architecture()
