"""A model implementation of the tests: native architectures alone."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.plugin import hookimpl
from engine.plugin.contracts.serving import ModelArchitecture, ModelImplementation

ENGINE_API = 1


class Native(ModelImplementation):
    """The first architecture that is registered."""

    def architecture(self, config: dict[str, Any], native: dict[str, str]) -> ModelArchitecture | str:
        for name in config["architectures"]:
            if name in native:
                return str(name)
        raise ModelFileError(f"config.json: architectures is {config['architectures']}; none is registered.")


@hookimpl
def engine_create_model_impl() -> ModelImplementation:
    return Native()
