"""Flags: their table, the command line's grammar, and the way from them to the configuration."""

from __future__ import annotations

from engine.args.engine_args import EngineArgs

__all__ = ["EngineArgs"]
