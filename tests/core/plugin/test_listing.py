"""``engine plugins`` and discovery: what is installed, from metadata and source text alone."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from engine.cli import main
from engine.plugin.discovery import scan
from engine.plugin.kinds import KINDS
from engine.plugin.listing import first_line, source_file
from tests.core.plugin.packages import SOUND, engine, install


def test_discovery_reads_what_importlib_metadata_reads(tmp_path, monkeypatch):
    install(tmp_path, "Acme.Engine", SOUND, name="acme")
    install(tmp_path / "shadowed", "acme-engine", SOUND, name="shadowed")
    for place in (tmp_path / "shadowed", tmp_path):
        monkeypatch.syspath_prepend(str(place))
    expected = {
        (point.group.removeprefix("engine."), point.name, point.value, f"{point.dist.name} {point.dist.version}")
        for kind in KINDS
        for point in importlib.metadata.entry_points(group=kind.group)
    }
    found = {(entry.kind, entry.name, entry.module, entry.distribution) for entry in scan()}
    assert found == expected
    assert ("loader", "acme", "Acme.Engine_acme", "Acme.Engine 0.3") in found


def test_every_registered_plugin_says_what_it_is():
    entries = [entry for entry in scan() if entry.distribution.startswith("engine ")]
    assert entries
    kinds = {kind.name for kind in KINDS}
    for entry in entries:
        assert entry.kind in kinds
        assert 10 <= len(first_line(entry.module)) <= 160, entry


def test_the_first_line_is_read_without_importing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "acme_heavy"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "one.py").write_text('"""What it does.\n\nMore."""\nraise RuntimeError("imported")')
    (package / "two.py").write_text("x = 1")
    (package / "three.py").write_text('"""')
    assert first_line("acme_heavy.one:thing") == "What it does."
    assert first_line("acme_heavy.two") == ""
    assert first_line("acme_heavy.three") == "(its source cannot be read)"
    assert first_line("acme_heavy.four") == first_line("nowhere.at.all") == ""
    assert source_file("acme_heavy.one") == str(package / "one.py")
    assert "acme_heavy" not in sys.modules


def test_list_as_json(capsys):
    assert main(["plugins", "list", "--kind", "loader", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["safetensors"]["module"] == "engine_plugins.loaders.safetensors"
    assert rows["safetensors"]["needs"] == ""
    assert set(rows["auto"]) == {"kind", "name", "module", "distribution", "needs", "about"}


def test_show_names_contract_and_options(tmp_path):
    options = "from dataclasses import dataclass\n@dataclass\nclass Options:\n    uri: str\n    threads: int = 4\n"
    install(tmp_path, "acme-engine", SOUND + options, name="acme")
    shown = engine(tmp_path, "plugins", "show", "acme").stdout
    for text in ("--load-format acme", "acme-engine 0.3", "must have describe, tensors", "uri: str (required)", "threads: int = 4"):
        assert text in shown, shown
    assert engine(tmp_path, "plugins", "show", "auto").stdout.count("chosen by") > 1
    assert engine(tmp_path, "plugins", "show", "auto", "--kind", "loader").stdout.count("chosen by") == 1


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["show", "acne"], "acne: no such plugin"),
        (["show", "safetensor"], "Did you mean safetensors"),
        (["list", "--kind", "x"], "--kind x"),
    ],
)
def test_wrong_names(capsys, argv, shown):
    assert main(["plugins", *argv]) == 3
    assert shown in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -c 'from engine.cli import main; main()' plugins list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=_environment(), check=False)
    assert done.stdout.startswith("KIND") and done.stderr == ""


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_the_public_names_are_listed_twice_alike():
    import ast
    from pathlib import Path

    import engine.plugin as plugin

    tree = ast.parse(Path(plugin.__file__).read_text())
    guarded = {
        (alias.asname, node.module)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert guarded == set(plugin._MODULE_OF.items())
    for name in plugin.__all__:
        assert getattr(plugin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = plugin.nothing
