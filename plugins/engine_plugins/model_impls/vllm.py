"""Native implementations: the architectures that are registered as plugins."""

from __future__ import annotations

import difflib
from typing import Any

from engine.errors import ModelFileError
from engine.plugin import hookimpl
from engine.plugin.contracts.serving import ModelArchitecture, ModelImplementation
from engine_plugins.model_impls._names import architectures

ENGINE_API = 1


class NativeImplementation(ModelImplementation):
    """The first of the config's architectures that a plugin provides."""

    def architecture(self, config: dict[str, Any], native: dict[str, str]) -> ModelArchitecture | str:
        """The registered name, or an error with the nearest one."""
        names = architectures(config)
        for name in names:
            if name in native:
                return name
        near = difflib.get_close_matches(names[0], native, n=1)
        hint = f" The nearest known is {near[0]}." if near else ""
        raise ModelFileError(f"config.json: no plugin implements the architecture {names[0]!r}.{hint}", fix="--model-impl transformers")


@hookimpl
def engine_create_model_impl() -> ModelImplementation:
    """The native provider."""
    return NativeImplementation()
