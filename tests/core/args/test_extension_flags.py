"""Flags that extensions add: taken from the line, shown by --help, handed over as the extension's options."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.args.engine_args import raise_problems, read_command_line
from engine.args.resolve import resolve
from engine.cli.serve import COMMAND
from engine.errors import ConfigError, EngineError, PluginError
from engine.plugin.discovery import FILES_VARIABLE

SOURCE = '''"""An extension with flags of its own."""
from dataclasses import dataclass

from engine.plugin import hookimpl

ENGINE_API = 1


@dataclass
class Options:
    most: int = 7
    tell_all: bool = False


@hookimpl
def engine_add_arguments(parser):
    parser.add_argument("--limits-most", type=int, help="Most requests at a time.")
    parser.add_argument("--limits-tell-all", action="store_true")
'''


@pytest.fixture(autouse=True)
def no_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILES_VARIABLE, "")


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    (tmp_path / "limits.py").write_text(SOURCE)
    return ["demo", "--plugin", str(tmp_path / "limits.py"), "--extensions", "limits"]


def read(argv: list[str]):
    line = read_command_line(argv)
    raise_problems(line.problems)
    return line


def test_their_values_are_options(flags: list[str]) -> None:
    line = read([*flags, "--limits-most", "3", "--max-num-seqs", "4", "--limits-tell-all"])
    assert line.args.extension_options == {"limits": {"most": 3, "tell_all": True}}
    assert (line.args.model, line.args.max_num_seqs) == ("demo", 4)
    assert resolve(line.args).server.extension_options == {"limits": {"most": 3, "tell_all": True}}


def test_what_is_not_given_is_left_to_the_options(flags: list[str]) -> None:
    assert read(flags).args.extension_options is None
    line = read([*flags, "--extension-options", '{"limits": {"most": 5}}', "--limits-tell-all"])
    assert line.args.extension_options == {"limits": {"most": 5, "tell_all": True}}


def test_without_the_extension_there_are_no_such_flags() -> None:
    with pytest.raises(ConfigError, match="--limits-most"):
        read(["demo", "--limits-most", "3"])


def test_a_wrong_value_is_named(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match="--limits-most: invalid int value: 'many'"):
        read([*flags, "--limits-most", "many"])


def test_help_shows_them(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMAND.read([*flags, "--help"]) is None
    shown = capsys.readouterr().out
    assert "Extension limits (file " in shown
    assert "Most requests at a time." in shown


def test_foreign_names_are_refused(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "limits.py").write_text(SOURCE.replace("--limits-most", "--max-num-seqs"))
    # Another path, because a file is imported once.
    (tmp_path / "other").mkdir()
    (tmp_path / "limits.py").rename(tmp_path / "other" / "limits.py")
    argv = ["demo", "--plugin", str(tmp_path / "other" / "limits.py"), "--extensions", "limits"]
    with pytest.raises(PluginError, match="adds --max-num-seqs; its flags begin with --limits-"):
        read(argv)


def test_one_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(SOURCE.replace("type=int", "type=int, nonsense=1").replace("limits", "broken"))
    with pytest.raises(EngineError, match="--extensions broken .from file .* failed"):
        read(["demo", "--plugin", str(tmp_path / "broken.py"), "--extensions", "broken"])
