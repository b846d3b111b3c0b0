"""Plugin names and missing capabilities."""

from __future__ import annotations

import pytest

from engine.args.engine_args import EngineArgs, read_command_line
from engine.args.help import render_help
from engine.args.table import FLAGS
from engine.errors import ConfigError, PluginError
from tests.core.args.installed import fake_entries


def problem(*argv: str):
    problems = read_command_line(["demo", *argv], entries=fake_entries()).problems
    assert len(problems) == 1, problems
    return problems[0]


def test_an_installed_plugin_of_anyone_is_a_choice():
    assert not read_command_line(["demo", "--load-format", "acme"], entries=fake_entries()).problems


def test_a_known_name_whose_plugin_is_not_there():
    found = problem("--load-format", "gguf")
    assert found.status == 3
    assert found.line() == (
        "--load-format gguf: not available in this version. Installed: acme, auto, dummy, pt, safetensors. Try: --load-format auto"
    )


def test_a_mistyped_plugin_names_the_nearest():
    found = problem("--load-format", "safetensor")
    assert found.status == 3
    assert "no such plugin. Did you mean safetensors?" in found.line()
    assert found.fix == "--load-format safetensors"


def test_a_kind_without_plugins():
    assert "None is installed" in problem("--reasoning-parser", "deepseek_r1").line()
    assert problem("--quantization", "awq").status == 3


def test_options_behind_a_plugin_name():
    assert "outlines" in problem("--guided-decoding-backend", "outlines:no-fallback").line()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--enable-lora"], "--enable-lora: not available in this version (LoRA adapters). Try: leave --enable-lora out"),
        (["-O3"], "--compilation-config 3: not available in this version (torch.compile)."),
        (["-pp", "2"], "--pipeline-parallel-size 2: not available in this version (pipeline parallelism)."),
    ],
)
def test_a_missing_capability_is_one_clear_line(argv, says):
    assert says in problem(*argv).line()


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.until is not None], ids=lambda flag: flag.name)
def test_every_flag_of_a_missing_capability_refuses(flag):
    samples = {"flag": [], "switch": ["=false"] if flag.default is True else ["=true"]}
    values = {"int": "7", "float": "7", "json": "{}", "literal": "3", "counts": "image=2", "floats": "2", "names": "model", "words": "x"}
    value = next((choice for choice in flag.choices if choice != str(flag.default)), values.get(flag.type, "x"))
    argv = [flag.name + "".join(samples[flag.type])] if flag.type in samples else [flag.name, value]
    lines = [found.line() for found in read_command_line(["demo", *argv], entries=fake_entries()).problems]
    assert any(line.startswith(flag.name) and "not available in this version" in line for line in lines), lines


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.until is not None], ids=lambda flag: flag.name)
def test_the_default_of_such_a_flag_is_accepted(flag):
    EngineArgs(entries=fake_entries(), **{flag.dest: flag.default})


def test_python_errors_are_of_the_right_class():
    with pytest.raises(PluginError, match="gguf"):
        EngineArgs(entries=fake_entries(), load_format="gguf")
    with pytest.raises(ConfigError, match="LoRA"):
        EngineArgs(entries=fake_entries(), enable_lora=True)


def test_help_shows_installed_plugins_and_whose_they_are():
    text = render_help("serve", "engine serve MODEL", "About.", entries=fake_entries(), width=100)
    assert "acme (acme-loader)" in text
    assert all(flag.name in text for flag in FLAGS)
    assert max(map(len, text.splitlines())) <= 100
    offline = render_help("generate", "engine generate MODEL", "About.", http=False, entries=fake_entries())
    assert "--port" not in offline
    assert "--chat-template " in offline
