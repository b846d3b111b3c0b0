"""A configuration in example.toml, with the keys of config.json."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, ConfigFormat, hookimpl

ENGINE_API = 1
CONFORMANCE = "example_conformance:TestExample"


class ExampleConfig(ConfigFormat):
    """One TOML file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ModelFileError(f"{self.path} cannot be read: {error}.", fix="check the file") from error


@hookimpl
def engine_create_config_format(checkpoint: Checkpoint) -> ConfigFormat:
    return ExampleConfig(Path(checkpoint.config_path) / "example.toml")
