"""Provides the registered architectures alone, never another library's; named example."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.plugin import ModelArchitecture, ModelImplementation, hookimpl

ENGINE_API = 1


class RegisteredOnly(ModelImplementation):
    """Answers the first of the config's architectures that is registered."""

    def architecture(self, config: dict[str, Any], native: dict[str, str]) -> ModelArchitecture | str:
        wanted = config.get("architectures") or []
        for name in wanted:
            if name in native:
                return str(name)
        known = ", ".join(sorted(native)) or "none"
        raise ModelFileError(f"config.json: architectures is {wanted}; registered are {known}.", fix="--model-impl auto")


@hookimpl
def engine_create_model_impl() -> ModelImplementation:
    return RegisteredOnly()
