"""The params.json of Mistral's own checkpoints, in the words of config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, ConfigFormat, hookimpl

from ._json import read_object
from ._normalise import check_sizes, normalise
from ._params import convert, stored_dtype

ENGINE_API = 1


class MistralConfig(ConfigFormat):
    """Reads ``params.json``; the dtype, which it does not state, comes from the weights' headers."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._place = Path(checkpoint.config_path)
        self._weights = Path(checkpoint.path)

    def read(self) -> dict[str, Any]:
        file = self._place / "params.json"
        if not file.exists():
            raise ModelFileError(f"{self._place} has no params.json.", fix="--config-format auto")
        config = convert(file, read_object(file))
        if "dtype" not in config and (dtype := stored_dtype(self._weights)) is not None:
            config["dtype"] = dtype
        check_sizes(file, config)
        return normalise(file, config)

    def generation(self) -> dict[str, Any]:
        file = self._place / "generation_config.json"
        return read_object(file) if file.exists() else {}


@hookimpl
def engine_create_config_format(checkpoint: Checkpoint) -> ConfigFormat:
    return MistralConfig(checkpoint)
