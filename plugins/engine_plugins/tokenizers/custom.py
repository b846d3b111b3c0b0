"""A tokenizer that another package registers by name: --tokenizer NAME is a plugin of this kind."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.plugin import Use, hookimpl

ENGINE_API = 1


@hookimpl
def engine_create_tokenizer(name: str | None) -> Use:
    """The plugin of that name in the group ``engine.tokenizer``; it gets the checkpoint like every other."""
    if not name:
        raise ConfigError("--tokenizer-mode custom needs the name of a registered tokenizer.", fix="--tokenizer NAME")
    return Use(name, f"--tokenizer {name}")
