"""An LLM inference engine whose every choice is a plugin. Names load on first use: ``import engine`` costs next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.args import EngineArgs
    from engine.llm import LLM
    from engine.plugin.request import SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "EngineArgs", "SamplingParams", "__version__"]

_HOME = {"LLM": "engine.llm", "EngineArgs": "engine.args", "SamplingParams": "engine.plugin.request"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
