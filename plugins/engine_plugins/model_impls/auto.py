"""Native where the architecture is registered, transformers' class otherwise."""

from __future__ import annotations

import difflib
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
        near = difflib.get_close_matches(names[0], native, n=1)
        note = f"No plugin implements the architecture {names[0]!r}" + (f" (the nearest is {near[0]})." if near else ".")
        logging.getLogger("engine").warning("%s Serving transformers' class.", note)
        return TransformersArchitecture(note)


@hookimpl
def engine_create_model_impl() -> ModelImplementation:
    """Both providers in order."""
    return AutoImplementation()
