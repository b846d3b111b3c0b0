"""What may import what, and what must stay unimported until it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from engine.plugin.discovery import scan
from tests.sources import PLUGIN_PACKAGES, imported, sources, tree

HEAVY = ("torch", "transformers", "triton", "safetensors", "tokenizers", "xgrammar", "bitsandbytes")
#: Parts of the front end: whoever imports them must not pay for a model's libraries.
LIGHT = ("engine", "engine.cli", "engine.args", "engine.server", "engine.render", "engine.assemble", "engine.client",
         "engine.scheduler", "engine.kvcache", "engine.plugin", "engine.plan", "engine.config", "engine.messages")  # fmt: skip


def run(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_plugin_module_imports_a_heavy_library():
    modules = sorted({entry.module.partition(":")[0] for entry in scan() if entry.module.startswith(PLUGIN_PACKAGES)})
    assert modules
    code = f"""
import sys
from importlib import import_module
for module in {modules!r}:
    import_module(module)
    found = sorted(set({HEAVY!r}) & set(sys.modules))
    assert not found, (module, found)
"""
    run(code)


def test_the_front_end_imports_no_heavy_library():
    modules = [name for name, file in sources("engine") if name == "engine" or name.startswith(LIGHT[1:])]
    assert len(modules) > 20
    code = f"""
import sys
from importlib import import_module
for module in {modules!r}:
    if not module.endswith("__main__"):
        import_module(module)
    found = sorted({{'torch', 'transformers', 'triton'}} & set(sys.modules))
    assert not found, (module, found)
"""
    run(code)


@pytest.mark.parametrize(
    "argv",
    [["--version"], ["--help"], ["serve", "--help"], ["plugins", "list"], ["plugins", "list", "--json"], ["serv"],
     ["serve", "demo", "--load-formt", "auto"], ["serve", "demo", "--load-format", "saftensors"]],
    ids=" ".join,
)  # fmt: skip
def test_commands_that_run_no_model_import_none(argv):
    code = f"""
import sys
from engine.cli import main
main({argv!r})
print("heavy:", sorted(set({(*HEAVY, "numpy", "fastapi", "stevedore", "pluggy")!r}) & set(sys.modules)))
"""
    assert run(code).splitlines()[-1] == "heavy: []"


def test_plugins_import_only_what_is_meant_for_them():
    wrong = []
    packed = tuple(module for module, _ in sources("engine") if module.startswith("engine.layers.packed"))
    made_of_layers = ("engine_plugins.models", "engine_plugins.model_impls", "engine_plugins.producers", "engine_quant")
    for module, file in sources(*PLUGIN_PACKAGES):
        own = module.partition(".")[0]
        shares_layers = module.startswith(made_of_layers)
        # Devices compute canonical layouts, and so know their classes; models and quantizers are made of layers.
        layers = ("engine.layers", "engine.attention") if shares_layers else ()
        layouts = (*packed, "engine.layers.rounding") if own == "engine_devices" else ()
        allowed = ("engine.plugin", "engine.errors", *layers, *layouts)
        for name, line in imported(file, module):
            top = name.partition(".")[0]
            foreign = top in PLUGIN_PACKAGES and top != own
            inner = top == "engine" and not any(name == part or name.startswith(f"{part}.") for part in allowed)
            if foreign or inner:
                wrong.append(f"{file}:{line}: {name}")
    assert not wrong


def test_the_core_imports_no_plugin_package():
    wrong = [
        f"{file}:{line}: {name}"
        for module, file in sources("engine")
        for name, line in imported(file, module)
        if name.partition(".")[0] in PLUGIN_PACKAGES
    ]
    assert not wrong


def test_only_the_host_speaks_to_pluggy_and_stevedore():
    homes = {"pluggy": {"engine.plugin.activate", "engine.plugin.api"}, "stevedore": {"engine.plugin.driver"}}
    wrong = [
        f"{file}:{line}: {name}"
        for module, file in sources()
        for name, line in imported(file, module)
        if module not in homes.get(name.partition(".")[0], {module})
    ]
    assert not wrong


#: Dangerous names, and where one is needed nevertheless.
FORBIDDEN = {"eval": (), "exec": (), "pickle": ("engine_plugins.loaders._pickled", "engine_plugins.loaders.pt"), "marshal": ()}


#: The conformance kit is made of tests: its assertions are its answers, and pytest rewrites them.
ASSERTING = ("engine.plugin.testing",)


def test_no_eval_no_pickle_no_assert():
    wrong = []
    for module, file in sources():
        for node in ast.walk(tree(file)):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if isinstance(node, ast.Assert) and not module.startswith(ASSERTING):
                wrong.append(f"{file}:{node.lineno}: assert")
            elif called in FORBIDDEN and module not in FORBIDDEN[called]:
                wrong.append(f"{file}:{node.lineno}: {called}")
        for name, line in imported(file, module):
            top = name.partition(".")[0]
            if top in FORBIDDEN and module not in FORBIDDEN[top]:
                wrong.append(f"{file}:{line}: import {name}")
    assert not wrong
