"""Qwen3 (dense): normalised queries and keys."""

from __future__ import annotations

from typing import Any

from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._qwen import QwenConfig, qwen_info

ENGINE_API = 1


def read_qwen3(config: dict[str, Any]) -> QwenConfig:
    """A Qwen3's keys with its own defaults; raises :class:`engine.errors.ModelFileError` naming the key."""
    return QwenConfig.read(config, head_dim=128)


class Qwen3Architecture(ModelArchitecture):
    """Qwen3ForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """One spec per layer, with its window."""
        return qwen_info(config, read_qwen3(config), "Qwen3ForCausalLM")

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.qwen3 import Qwen3

        return Qwen3(context, read_qwen3(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Qwen3Architecture()
