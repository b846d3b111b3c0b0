"""The one place that speaks to stevedore: its driver imports the one chosen entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from stevedore.driver import DriverManager


def import_driver(group: str, name: str, target: str) -> Any:
    """Import ``target`` (``module`` or ``module:object``) as the driver ``name`` of ``group``; errors pass through."""

    class ChosenDriver(DriverManager[Any]):
        """Seeded with the one resolved entry point: stevedore's own list misses conflicts and can be stale."""

        def list_entry_points(self) -> list[EntryPoint]:
            return [EntryPoint(name, target, group)]

    return ChosenDriver(group, name, on_missing_entrypoints_callback=None).driver
