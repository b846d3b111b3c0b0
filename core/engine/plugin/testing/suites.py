"""Which suite holds a plugin: the one that its module names, else its kind's."""

from __future__ import annotations

from importlib import import_module

from engine.plugin import testing
from engine.plugin.discovery import Entry
from engine.plugin.testing.base import PluginContract
from engine.plugin.testing.table import SUITE_NAMES

#: One suite per kind.
SUITES: dict[str, type[PluginContract]] = {kind: getattr(testing, name) for kind, name in SUITE_NAMES.items()}


def suite_of(entry: Entry) -> type[PluginContract]:
    """A test class for one installed plugin.

    A plugin that needs more than its kind's suite knows (files in its format, arguments, examples) ships a subclass of it and says where:
    ``CONFORMANCE = "acme_conformance:TestAcme"`` in its module.
    """
    named = getattr(_module(entry), "CONFORMANCE", None)
    if named is not None:
        module, _, attribute = named.partition(":")
        base: type[PluginContract] = getattr(import_module(module), attribute)
    else:
        base = SUITES[entry.kind]
    plain = "".join(character if character.isalnum() else "_" for character in f"{entry.kind}_{entry.name}")
    return type(f"Test_{plain}", (base,), {"name": entry.name, "__module__": __name__})


def _module(entry: Entry) -> object:
    """The plugin's module, or nothing where it cannot be imported: its suite says so then."""
    try:
        return import_module(entry.module.partition(":")[0])
    except Exception:  # noqa: BLE001 - whatever a broken plugin raises is what its suite reports
        return None
