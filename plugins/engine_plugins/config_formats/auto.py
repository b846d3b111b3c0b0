"""Chooses the config format by the files there are: config.json, else params.json."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Use, hookimpl

ENGINE_API = 1


@hookimpl
def engine_create_config_format(checkpoint: Checkpoint) -> Use:
    place = Path(checkpoint.config_path)
    for file, name in (("config.json", "hf"), ("params.json", "mistral")):
        if (place / file).exists():
            return Use(name, f"{file} is there")
    if checkpoint.directory.is_file():
        return Use("hf", f"the metadata of {checkpoint.directory.name}")
    raise ModelFileError(
        f"{place} has neither config.json nor params.json.",
        fix="--hf-config-path DIR, the directory that holds config.json",
    )
