"""The architectures that a configuration names."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError


def architectures(config: dict[str, Any]) -> list[str]:
    """``architectures`` of config.json: a list with at least one name; raises :class:`ModelFileError` otherwise."""
    names = config.get("architectures")
    if names is None:
        raise ModelFileError("config.json: architectures is missing.", fix='--hf-overrides \'{"architectures": ["LlamaForCausalLM"]}\'')
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelFileError(f"config.json: architectures is {names!r}; it must be a list of names.")
    return names


def check_name(name: str, served: str) -> None:
    """Refuse an architecture that transformers does not know: ``served``, its model_type's class, may be another network."""
    import transformers

    if name != served and name not in dir(transformers):
        raise ModelFileError(
            f"config.json: architectures names {name!r}, which transformers does not have; its model_type means {served}.",
            fix=f"--hf-overrides '{{\"architectures\": [\"{served}\"]}}', if that is what it is",
        )
