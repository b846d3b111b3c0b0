"""The config.json and generation_config.json of the Hugging Face layout, checked and normalised."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from engine.plugin import Checkpoint, ConfigFormat, hookimpl

from ._json import read_object
from ._normalise import check_sizes, normalise

ENGINE_API = 1
_log = logging.getLogger(__name__)


class HuggingFaceConfig(ConfigFormat):
    """Reads JSON alone. Which code a config names (``auto_map``) is kept where that may be run, for whoever provides the architecture."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._place = Path(checkpoint.config_path)
        self._trusted = checkpoint.code_path is not None
        #: The model where it is a single file, which says itself how its tensors are kept.
        self._gguf = checkpoint.directory if checkpoint.directory.is_file() else None

    def read(self) -> dict[str, Any]:
        file = self._place / "config.json"
        if self._gguf is not None and not file.exists():
            return self._synthesised(self._gguf)
        config = read_object(file)
        own = config.get("auto_map")
        if _without_code(config) and not self._trusted:
            _log.warning("%s names code of its own (auto_map), which is not run without --trust-remote-code.", file)
        if self._trusted and isinstance(own, dict):
            config["auto_map"] = own
        if self._gguf is not None:
            from engine_plugins._gguf.config import overlay
            from engine_plugins._gguf.model import GgufModel

            config |= overlay(GgufModel(self._gguf))
        check_sizes(file, config)
        return normalise(file, config)

    def _synthesised(self, file: Path) -> dict[str, Any]:
        """From a GGUF file's metadata."""
        from engine_plugins._gguf.config import read_config
        from engine_plugins._gguf.model import GgufModel

        config = read_config(GgufModel(file))
        check_sizes(file, config)
        return normalise(file, config)

    def generation(self) -> dict[str, Any]:
        file = self._place / "generation_config.json"
        return read_object(file) if file.exists() else {}


def _without_code(value: Any) -> bool:
    """Remove every ``auto_map`` and ``trust_remote_code``, however deep; whether there was an ``auto_map``."""
    if not isinstance(value, dict | list):
        return False
    found = False
    if isinstance(value, dict):
        value.pop("trust_remote_code", None)
        found = value.pop("auto_map", None) is not None
    for item in value.values() if isinstance(value, dict) else value:
        found |= _without_code(item)
    return found


@hookimpl
def engine_create_config_format(checkpoint: Checkpoint) -> ConfigFormat:
    return HuggingFaceConfig(checkpoint)
