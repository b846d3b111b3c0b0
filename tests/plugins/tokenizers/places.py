"""Tokenizers of directories, as the engine makes them."""

from __future__ import annotations

from pathlib import Path

from engine.plugin import Checkpoint, Use
from engine_plugins.tokenizers import auto


def checkpoint(place: Path) -> Checkpoint:
    return Checkpoint(model=str(place), path=str(place), config_path=str(place), tokenizer_path=str(place))


def fast(place: Path):
    made = auto.engine_create_tokenizer(checkpoint(place))
    assert not isinstance(made, Use)
    return made
