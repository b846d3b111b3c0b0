"""What a plugin module is made of: the API version, the hook marker, ``Use`` and ``Choice``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import pluggy

#: A plugin module says ``ENGINE_API = 1``. The number changes when a contract breaks, not when one grows.
API_VERSION = 1
PROJECT = "engine"


class Use(msgspec.Struct, frozen=True):
    """A hook's answer "take that one instead": ``auto`` is a plugin that returns ``Use("safetensors", "…")``.

    ``reason`` is shown by ``engine plan``.
    """

    name: str
    reason: str = ""


class Choice(msgspec.Struct, frozen=True):
    """One resolved plugin. Made once, in the front end; every other process imports exactly ``module``.

    ``distribution`` is "name version"; ``asked`` is what the user typed when ``Use`` led elsewhere.
    """

    kind: str
    name: str
    module: str
    distribution: str
    asked: str
    reason: str = ""


def __getattr__(name: str) -> Any:
    """``hookimpl`` and ``hookspec``, made on first use so that listing plugins need not import pluggy."""
    if name in ("hookimpl", "hookspec"):
        import pluggy

        markers: dict[str, Any] = {"hookimpl": pluggy.HookimplMarker(PROJECT), "hookspec": pluggy.HookspecMarker(PROJECT)}
        return markers[name]
    raise AttributeError(name)


if TYPE_CHECKING:
    hookimpl: pluggy.HookimplMarker
    hookspec: pluggy.HookspecMarker
