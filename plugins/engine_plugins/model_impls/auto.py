"""Native where the architecture is registered, transformers' class otherwise."""

from __future__ import annotations

import logging
from typing import Any

from engine.plugin import hookimpl
from engine.plugin.contracts.serving import ModelArchitecture, ModelImplementation
from engine_plugins.model_impls._names import architectures
from engine_plugins.model_impls.transformers import TransformersArchitecture

ENGINE_API = 1


class AutoImplementation(ModelImplementation):
    """Prefers the native implementation, which is faster and can do more."""

    def architecture(self, config: dict[str, Any], native: dict[str, str]) -> ModelArchitecture | str:
        """A registered name, or transformers' class with a warning."""
        names = architectures(config)
        for name in names:
            if name in native:
                return name
        logging.getLogger("engine").warning("No native implementation of %s: serving transformers' class.", names[0])
        return TransformersArchitecture()


@hookimpl
def engine_create_model_impl() -> ModelImplementation:
    """Both providers in order."""
    return AutoImplementation()
