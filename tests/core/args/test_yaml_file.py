"""``--config FILE.yaml``."""

from __future__ import annotations

import pytest

from engine.args.engine_args import CommandLine, read_command_line
from tests.core.args.installed import fake_entries


@pytest.fixture
def read(tmp_path):
    def run(text: str, *argv: str) -> CommandLine:
        (tmp_path / "engine.yaml").write_text(text)
        return read_command_line([*argv, "--config", str(tmp_path / "engine.yaml")], entries=fake_entries())

    return run


def test_values_and_precedence(read):
    text = """
        port: 8001
        max-model-len: 4K
        max_num_seqs: 3
        enforce-eager: true
        disable-log-stats: false
        enable-prefix-caching: false
        enable-chunked-prefill: false
        served-model-name: [a, b]
        hf-overrides: {rope_theta: 5.0}
        override-generation-config: '{"temperature": 0.5}'
        model: other
    """
    line = read(text, "demo", "--port", "9")
    assert not line.problems, line.problems
    args = line.args
    assert (args.model, args.port, args.max_model_len, args.max_num_seqs) == ("demo", 9, 4096, 3)
    assert (args.enforce_eager, args.disable_log_stats) == (True, False)
    assert (args.enable_prefix_caching, args.enable_chunked_prefill) == (False, False)
    assert (args.served_model_name, args.hf_overrides) == (["a", "b"], {"rope_theta": 5.0})
    assert args.override_generation_config == {"temperature": 0.5}


def test_the_model_may_stand_in_the_file(read):
    assert read("model: demo").args.model == "demo"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nprot: 1", "engine.yaml:2: --prot: no such flag. Did you mean --port?"),
        ("port: 1\nseed: 2\nport: 3", "engine.yaml:3: --port is given twice."),
        ("port: x", "engine.yaml:1: --port x: not an integer."),
        ("port: [1, 2]", "engine.yaml:1: --port takes one value, not a list."),
        ("server:\n  port: 1", "engine.yaml:1: --server: no such flag."),
        ("port:\n  a: 1", "engine.yaml:1: --port takes no mapping."),
        ("enforce-eager: 3", "engine.yaml:1: --enforce-eager 3: neither true nor false."),
        ("- port", "engine.yaml:1: not a mapping"),
        ("port: {", "not valid YAML"),
        ("config: other.yaml", "cannot name another"),
        ("port: !!python/object/apply:os.getcwd []", "engine.yaml:1: --port"),
    ],
)
def test_problems_name_file_and_line(read, text, says):
    lines = [problem.line() for problem in read(text, "demo").problems]
    assert any(says in line for line in lines), lines


@pytest.mark.parametrize(("path", "says"), [("no.yaml", "no such file"), ("engine.txt", "not a .yaml or .yml file")])
def test_the_file_itself(path, says):
    assert says in read_command_line(["demo", "--config", path], entries=fake_entries()).problems[0].line()


def test_an_empty_file_says_nothing(read):
    assert not read("", "demo").problems
