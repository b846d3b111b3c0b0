"""The table of kinds fits the hooks and the contracts, and every plugin of the engine's own fits the table."""

from __future__ import annotations

import subprocess
import sys

import pytest

import engine.plugin
from engine.plugin import spec
from engine.plugin.activate import registered
from engine.plugin.discovery import scan
from engine.plugin.host import PluginHost
from engine.plugin.kinds import EXTENSION, EXTENSION_HOOKS, KINDS, kind

OWN = [entry for entry in scan() if entry.distribution.startswith("engine ")]


def test_names_flags_and_groups_are_unique():
    for values in ([k.name for k in KINDS], [k.flag for k in KINDS if k.flag], [k.group for k in KINDS]):
        assert len(values) == len(set(values))
    assert kind("loader").group == "engine.loader"
    with pytest.raises(KeyError):
        kind("nothing")


@pytest.mark.parametrize("row", KINDS, ids=lambda row: row.name)
def test_every_kind_has_its_hook_and_its_contract(row):
    options = getattr(spec, row.hook).engine_spec
    if row is EXTENSION:
        assert not options["firstresult"]
        return
    assert options["firstresult"]
    assert row.contract.__name__ in engine.plugin.__all__
    assert getattr(row.contract, "__abstractmethods__", ()), "a contract promises something"


@pytest.mark.parametrize("entry", OWN, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_own_plugin_fits_its_kind(entry):
    host = PluginHost()
    row = kind(entry.kind)
    choice = host.resolve(row, entry.name)
    module = host.module(row, choice)
    hooks = registered(row, choice, module).hook
    wanted = EXTENSION_HOOKS if row is EXTENSION else (row.hook,)
    assert any(getattr(hooks, hook).get_hookimpls() for hook in wanted)
    assert row is EXTENSION or not hooks.engine_request_finished.get_hookimpls()


def test_devices_can_be_probed_without_torch():
    names = [entry.name for entry in OWN if entry.kind == "device" and entry.name != "auto"]
    code = f"""
import sys
from engine.plugin.host import PluginHost
from engine.plugin.kinds import DEVICE
for name in {names!r}:
    facts = PluginHost().call(DEVICE, name, "engine_probe_device")
    assert facts.available or facts.reason, name
assert "torch" not in sys.modules
"""
    import os

    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert names and done.returncode == 0, done.stderr


def test_one_module_is_one_name():
    """An alias is an entry point of its own, but one kind's hook in a module serves one kind only."""
    kinds: dict[str, set[str]] = {}
    for entry in OWN:
        kinds.setdefault(entry.module, set()).add(entry.kind)
    assert not {module for module, used in kinds.items() if len(used) > 1}
