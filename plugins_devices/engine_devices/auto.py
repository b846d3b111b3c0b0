"""Takes the available device of the highest priority."""

from __future__ import annotations

from engine.errors import UnavailablePlugin
from engine.plugin import Device, DeviceFacts, Use, hookimpl

ENGINE_API = 1


@hookimpl
def engine_choose_device(probes: list[DeviceFacts]) -> Use:
    """The available device of the highest priority; of equals, the first in the alphabet."""
    available = sorted((facts for facts in probes if facts.available), key=lambda facts: (-facts.priority, facts.name))
    if not available:
        reasons = "; ".join(f"{facts.name}: {facts.reason}" for facts in probes) or "no device plugin is installed"
        raise UnavailablePlugin(f"No device can be used ({reasons}).", fix="engine plugins list")
    best = available[0]
    passed = [f"{facts.name}: {facts.reason}" for facts in probes if facts.priority > best.priority]
    reason = f"{best.description or best.reason}; " + ("; ".join(passed) or "no device of a higher priority")
    return Use(best.name, reason)


@hookimpl
def engine_create_device() -> Device:
    """``auto`` is no device: the front end replaces it by what ``engine_choose_device`` names before workers start."""
    raise UnavailablePlugin("The device 'auto' was not resolved before a worker started.", fix="--device cpu")
