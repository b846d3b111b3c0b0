"""Plugins from single files: --tool-parser-plugin."""

from __future__ import annotations

import pytest

from engine.errors import BrokenPlugin, ConfigError
from engine.plugin import kinds
from engine.plugin.host import PluginHost

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
