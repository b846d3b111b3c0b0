"""The command ``engine``: exit statuses, last lines, and what it does not import."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from engine import __version__
from engine.args.engine_args import read_command_line
from engine.cli import COMMANDS, main
from engine.plugin.discovery import scan
from tests.core.plan.checkpoints import write_llama

HEAVY = {
    "torch", "transformers", "triton", "pluggy", "stevedore", "fastapi", "uvicorn", "huggingface_hub", "numpy", "yaml", "argparse",
    "importlib.metadata", "msgspec",
}  # fmt: skip
installed = pytest.mark.skipif(
    not any(entry.kind == "model_impl" for entry in scan()), reason="the engine is not installed here: no entry points"
)


def last_line(capsys) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"engine {__version__}\n"


@pytest.mark.parametrize(("argv", "status"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_overview(capsys, argv, status):
    assert main(argv) == status
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in COMMANDS)


@pytest.mark.parametrize("command", ["serve", "generate", "chat", "plan", "bench"])
def test_every_command_has_help(capsys, command):
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: engine ")


def test_an_unknown_command(capsys):
    assert main(["sevre"]) == 2
    assert last_line(capsys) == "engine: sevre: no such command. Did you mean serve? Try: engine serve"


@pytest.mark.parametrize(
    ("argv", "status", "line"),
    [
        (["serve", "x", "--sed", "1"], 2, "engine serve: --sed: no such flag. Did you mean --seed? Try: --seed"),
        (["serve", "demo", "--port", "x"], 2, "engine serve: --port x: not an integer. Try: --port 8000"),
        (["serve"], 2, "engine serve: No model is given. Try: name a directory, a hub repository, or the bundled model demo"),
        (["generate", "demo", "--port", "1"], 2, "engine generate: --port is for engine serve alone. Try: leave --port out"),
        (
            ["bench", "speed", "demo"], 2,
            "engine bench: speed: no such benchmark (latency, throughput, serve, roofline). Try: engine bench latency MODEL",
        ),
        (["bench", "latency", "demo", "--batch-size", "0"], 2, "engine bench: --batch-size 0: must be at least 1. Try: --batch-size 1"),
        (["chat", "--url", "localhost"], 2, "engine chat: --url localhost: not an http address. Try: --url http://localhost"),
    ],
)
def test_usage_errors(capsys, argv, status, line):
    assert main(argv) == status
    assert last_line(capsys) == line


def test_a_mistyped_plugin_is_status_3(capsys):
    assert main(["serve", "demo", "--scheduling-policy", "fcsf"]) == 3
    assert "--scheduling-policy fcsf: no such plugin. Did you mean fcfs?" in last_line(capsys)


def test_a_missing_model_is_status_4(capsys, tmp_path):
    (tmp_path / "llama-7b").mkdir()
    (tmp_path / "llama-7b" / "config.json").write_text("{}")
    assert main(["serve", str(tmp_path / "lama-7b")]) == 4
    line = last_line(capsys)
    assert "neither a directory, nor a bundled model" in line
    assert line.endswith(f"Try: {tmp_path / 'llama-7b'}")


def test_a_file_is_no_model(capsys, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"12345678")
    assert main(["serve", str(tmp_path / "x.safetensors")]) == 4
    assert last_line(capsys).endswith(f"Try: --model {tmp_path}")


def test_all_problems_are_lines(capsys):
    assert main(["serve", "demo", "--port", "x", "--enable-lora", "--seed=y"]) == 2
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["--enable-lora:", "--seed", "--port"]


def test_tracebacks_are_for_those_who_ask(capsys, monkeypatch):
    main(["serve", "/nowhere/at/all"])
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("ENGINE_TRACEBACK", "1")
    main(["serve", "/nowhere/at/all"])
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_the_engine_says_so(capsys, monkeypatch):
    def broken(argv):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("engine.cli.plan.run", broken)
    assert main(["plan", "demo"]) == 1
    line = "engine plan: this is a fault in the engine: ZeroDivisionError: by zero. Try: ENGINE_TRACEBACK=1 to see where"
    assert last_line(capsys) == line


@installed
def test_plan_prints_json_and_ends_with_the_status_of_serve(capsys, tmp_path):
    model = str(write_llama(tmp_path / "m"))
    assert main(["plan", model, "--device", "cpu"]) == 4, "there is no tokenizer"
    capsys.readouterr()
    assert main(["plan", model, "--device", "cpu", "--json", "--skip-tokenizer-init"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["architecture"] == "LlamaForCausalLM"
    assert main(["plan", model, "--device", "cpu", "--json", "--num-gpu-blocks-override", "999999999"]) == 5
    streams = capsys.readouterr()
    assert json.loads(streams.out)["refused"][0]["status"] == 5
    assert streams.err.splitlines()[-1].startswith("engine plan: --num-gpu-blocks-override 999999999 needs")


@installed
def test_serve_refuses_what_plan_refuses(capsys, tmp_path):
    model = str(write_llama(tmp_path / "m"))
    assert main(["serve", model, "--device", "cpu", "--num-gpu-blocks-override", "999999999"]) == 5
    assert "blocks). Try: --num-gpu-blocks-override" in last_line(capsys)


@installed
def test_a_taken_port_is_status_6_before_anything_loads(tmp_path, capsys):
    model = str(write_llama(tmp_path / "m"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", model, "--device", "cpu", "--port", str(taken.getsockname()[1])]) == 6
    assert "Try: " in last_line(capsys)


def run_and_list_modules(*argv: str) -> set[str]:
    code = f"import sys\nfrom engine.cli import main\nmain({list(argv)!r})\nprint('\\x00' + ' '.join(sys.modules))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return set(done.stdout.rpartition("\x00")[2].split())


@pytest.mark.parametrize(
    "argv",
    [
        ["--version"], ["--help"], ["serve", "--help"], ["generate", "--help"], ["chat", "--help"], ["bench", "latency", "--help"],
        ["serve", "demo", "--lod-format", "x"], ["serve", "demo", "--load-format", "x"], ["sevre"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_quick_ways_import_nothing_heavy(argv):
    assert not HEAVY & run_and_list_modules(*argv)


def test_one_model_for_the_url_is_not_needed():
    assert not read_command_line(["--seed", "1"], entries=[], needs_model=False).problems
