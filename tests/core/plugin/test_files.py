"""Plugins from single files: --plugin, --tool-parser-plugin; the trace of what is done with plugins."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from engine.errors import BrokenPlugin, ConfigError
from engine.plugin import kinds
from engine.plugin.discovery import scan
from engine.plugin.files import add_files
from engine.plugin.host import PluginHost
from tests.core.plugin.packages import engine
from tests.sources import REPOSITORY, ROOTS

PARSER = '''"""Says what it hears."""
from engine.plugin import Delta, ParserState, ToolParser, hookimpl

ENGINE_API = 1


class Echo(ParserState):
    def feed(self, text, token_ids):
        return Delta(text)

    def finish(self):
        return Delta()


class EchoParser(ToolParser):
    def start(self, tools):
        return Echo()


@hookimpl
def engine_create_tool_parser():
    return EchoParser()
'''


def run_engine_python(script, *argv):
    """A fresh process that can import the engine and knows the plugin files of this one."""
    path = os.pathsep.join(str(REPOSITORY / root) for root in ROOTS.values())
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, env=environment, check=False)


def test_a_file_is_a_plugin(tmp_path):
    (tmp_path / "echo.py").write_text(PARSER)
    host = PluginHost([])
    host.add_file(kinds.TOOL_PARSER, str(tmp_path / "echo.py"), "--tool-parser-plugin")
    choice = host.resolve(kinds.TOOL_PARSER, "echo")
    assert choice.distribution == f"file {tmp_path / 'echo.py'}"
    created = PluginHost([]).create(kinds.TOOL_PARSER, choice, tokenizer=None, options={})
    assert created.plugin.start([]).feed("a", ()).content == "a"


@pytest.mark.parametrize(("name", "content", "error"), [
    ("absent.py", None, ConfigError), ("text.txt", "", ConfigError), ("broken.py", "1 / 0", BrokenPlugin),
    ("wrong.py", "def", BrokenPlugin),
])  # fmt: skip
def test_files_that_are_none(tmp_path, name, content, error):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=name.partition(".")[0]):
        PluginHost([]).add_file(kinds.TOOL_PARSER, str(tmp_path / name), "--tool-parser-plugin")


SHORTEST = (REPOSITORY / "tests/thirdparty/acme_engine_shortest/acme_engine_shortest.py").read_text()


def test_a_file_is_installed_for_every_process(tmp_path, monkeypatch):
    monkeypatch.setenv("ENGINE_PLUGIN_FILES", "")
    (tmp_path / "shortest.py").write_text(SHORTEST)
    add_files([str(tmp_path / "shortest.py")])
    entry = next(entry for entry in scan() if entry.name == "shortest")
    assert (entry.kind, entry.module) == ("policy", str(tmp_path / "shortest.py"))
    choice = PluginHost().resolve(kinds.POLICY, "shortest")
    script = "import sys; from engine.plugin.host import *; from engine.plugin import kinds, Choice; import msgspec; "
    script += "print(type(load(msgspec.json.decode(sys.argv[1], type=Choice), kinds.POLICY)).__name__)"
    done = run_engine_python(script, msgspec.json.encode(choice).decode())
    assert done.stdout.strip() == "ShortestPrompt", done.stderr


@pytest.mark.parametrize(("content", "told"), [
    ("x = 1", "defines none"), ("def", "cannot be read as Python"),
    ("def engine_create_policy(): ...\ndef engine_create_loader(): ...", "engine_create_loader, engine_create_policy"),
])  # fmt: skip
def test_files_without_one_hook_are_refused(tmp_path, monkeypatch, content, told):
    monkeypatch.setenv("ENGINE_PLUGIN_FILES", "")
    (tmp_path / "odd.py").write_text(content)
    with pytest.raises(ConfigError, match=told):
        add_files([str(tmp_path / "odd.py")])
    assert os.environ["ENGINE_PLUGIN_FILES"] == ""


def test_the_command_takes_a_file_and_traces_it(tmp_path):
    (tmp_path / "shortest.py").write_text(SHORTEST)
    done = engine(tmp_path, "plan", "demo", "--plugin", str(tmp_path / "shortest.py"), "--scheduling-policy", "shortest")
    assert done.returncode == 0, done.stderr
    assert "shortest" in done.stdout
    wrong = engine(tmp_path, "plan", "demo", "--plugin", str(tmp_path / "nothing.py"))
    assert wrong.returncode == 2 and "--plugin" in wrong.stderr and "no such Python file" in wrong.stderr


def test_plugins_are_traced(tmp_path, monkeypatch):
    monkeypatch.setenv("ENGINE_TRACE_PLUGINS", "1")
    done = engine(tmp_path, "plan", "demo")
    assert "import config_format hf" in done.stderr and "engine_create_config_format config_format hf" in done.stderr
    assert " ms" in done.stderr
