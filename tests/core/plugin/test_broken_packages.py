"""Installed third-party packages that are broken: each ends the start with status 3 and a last line that says what to do."""

from __future__ import annotations

import pytest

from tests.core.plugin.packages import HEAD, SOUND, engine, install

BROKEN = {
    "missing-package": (
        HEAD + "@hookimpl\ndef engine_create_loader():\n    import notthere_kernels",
        "--load-format acme (from acme-engine 0.3) needs the package 'notthere_kernels', which is not installed. "
        "Try: pip install 'acme-engine[acme]'",
    ),
    "own-import-error": (
        HEAD + "from acme_engine_acme import nothing",
        "--load-format acme (from acme-engine 0.3) is broken: ImportError: cannot import name 'nothing'",
    ),
    "own-bug": (HEAD + "1 / 0", "--load-format acme (from acme-engine 0.3) failed: ZeroDivisionError: division by zero"),
    "old-api": (
        SOUND.replace("ENGINE_API = 1", "ENGINE_API = 0"),
        "--load-format acme (from acme-engine 0.3) is written for plugin API 0; this engine speaks 1.",
    ),
    "bad-signature": (
        HEAD + "@hookimpl\ndef engine_create_loader(modle): pass",
        "--load-format acme (from acme-engine 0.3) does not fit the hook specification: ",
    ),
    "broken-contract": (
        HEAD + "class Half(Loader):\n    def describe(self): return []\n@hookimpl\ndef engine_create_loader(): return Half()",
        "--load-format acme (from acme-engine 0.3) does not keep the contract Loader: ",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_named_with_the_remedy(tmp_path, case):
    source, shown = BROKEN[case]
    install(tmp_path, "acme-engine", source, name="acme", extras={"acme": "notthere-kernels>=1"})
    done = engine(tmp_path, "plan", "demo", "--load-format", "acme")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 3, done.stderr
    assert shown in last
    assert " Try: " in last
    assert "Traceback" not in done.stderr


def test_two_packages_with_one_name(tmp_path):
    install(tmp_path, "acme-engine", SOUND, name="safetensors")
    done = engine(tmp_path, "plan", "demo", "--load-format", "safetensors")
    assert done.returncode == 3
    assert "--load-format safetensors is offered by more than one distribution" in done.stderr
    assert "acme-engine 0.3: acme_engine_safetensors" in done.stderr and "engine_plugins.loaders.safetensors" in done.stderr


def test_a_broken_package_that_is_not_chosen_harms_nothing(tmp_path):
    install(tmp_path, "acme-engine", HEAD + "1 / 0", name="acme")
    for argv in (["plugins", "list"], ["serve", "--help"], ["plan", "demo"]):
        done = engine(tmp_path, *argv)
        assert done.returncode == 0, done.stderr
    assert "acme" in engine(tmp_path, "serve", "--help").stdout


def test_a_sound_package_is_a_choice_everywhere(tmp_path):
    install(tmp_path, "acme-engine", SOUND, name="acme")
    assert "acme" in engine(tmp_path, "serve", "--help").stdout
    row = next(line for line in engine(tmp_path, "plugins", "list").stdout.splitlines() if " acme " in line)
    assert "acme-engine 0.3" in row and "ready" in row and "Reads nothing." in row
    near = engine(tmp_path, "plan", "demo", "--load-format", "acne")
    assert near.returncode == 3 and "Did you mean acme?" in near.stderr


def test_listing_says_what_an_extra_lacks(tmp_path):
    install(tmp_path, "acme-engine", SOUND, name="acme", extras={"acme": "notthere-kernels>=1"})
    install(tmp_path, "other-engine", SOUND, name="other", extras={"other": "pluggy>=1"})
    listed = engine(tmp_path, "plugins", "list", "--kind", "loader").stdout
    assert "pip install 'acme-engine[acme]'" in listed
    assert "other-engine[other]" not in listed
