"""What a server says when it is ready: model, device, kernels, cache, and where the time of the start went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config import EngineConfig
from engine.messages import Ready
from engine.plan import gib

#: Phases shorter than this are left out of the line, not of the sum.
_SHOWN_SECONDS = 0.05


def start_lines(config: EngineConfig, ready: Ready, kernels: Mapping[str, Any], seconds: float) -> list[str]:
    """Lines for the log. ``kernels``: the device's own description; ``seconds``: from the command to now."""
    model, tokens = config.model, ready.pages * ready.block_size
    length = ready.max_model_len
    described = ", ".join(f"{name}: {value}" for name, value in kernels.items() if name != "sequences")
    return [
        f"Model {model.served_names[0]}: {model.info.architecture}, {model.dtype}, up to {length} tokens, "
        f"{gib(ready.weight_bytes)} in memory",
        f"Device {config.device.name}: {config.device.description or config.device.reason}",
        f"Kernels: {described or 'the engine’s own'}",
        f"KV cache: {ready.pages} pages of {ready.block_size} tokens ({gib(ready.pages * ready.page_bytes)}) in {config.cache.dtype}, "
        f"{tokens / length:.1f} sequences of {length} tokens at once",
        f"Ready in {seconds:.1f} s: {_phases(ready.seconds, seconds)}",
    ]


def _phases(engine: Mapping[str, float], seconds: float) -> str:
    """The engine's phases, and what the front end took before and after them."""
    shown = {"front end": max(0.0, seconds - sum(engine.values())), **engine}
    return ", ".join(f"{name} {value:.1f}" for name, value in shown.items() if value >= _SHOWN_SECONDS)
