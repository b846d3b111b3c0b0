"""A Llama under another name, for checkpoints whose config says Example."""

from __future__ import annotations

from typing import Any

from engine.plugin import Model, ModelArchitecture, ModelContext, ModelInfo, hookimpl
from engine.plugin.host import PluginHost
from engine.plugin.kinds import MODEL

ENGINE_API = 1


class Renamed(ModelArchitecture):
    """Describes and builds what the registered Llama does."""

    def __init__(self) -> None:
        self.llama = PluginHost().create(MODEL, "LlamaForCausalLM").plugin

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        return self.llama.describe(config)

    def build(self, context: ModelContext) -> Model:
        return self.llama.build(context)


@hookimpl
def engine_create_model() -> ModelArchitecture:
    return Renamed()
